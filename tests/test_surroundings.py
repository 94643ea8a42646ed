"""What a machine, a home or another program's files may be like: none of it decides anything, or ends a run."""

import contextlib
import errno
import json
import os
import pwd
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import pytest
from conftest import environment

from trainer.errors import translate
from trainer.process.exit import run_to_exit_code
from trainer.process.imports import keras_by_itself, keras_home, settle

SETTINGS = [{"image_data_format": "channels_first"}, {"floatx": "float16"}, {"floatx": "bfloat16"}, {"epsilon": 0.1},
            {"epsilon": 1}, {"backend": "torch"}, {"nnx_enabled": True}, [], "{", "\0"]
# What else Keras reads: variables of other programs' runs.
VARIABLES = {"KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "many", "KERAS_NNX_ENABLED": "1"}

# A model of a user's; from its first call on, the folder that the run was started in is gone.
STRANGE = """
import keras, os, shutil, small_models
def model(classes, image_shape):
    try:
        shutil.rmtree(os.getcwd())
    except FileNotFoundError:
        pass
    assert (keras.config.floatx(), keras.config.epsilon()) == ("float32", 1e-7)
    assert keras.config.image_data_format() == "channels_last" and keras.config.backend() == "tensorflow"
    return small_models.smooth(classes, image_shape)
"""


def settings_file(home, settings):
    """Writes another program's keras.json."""
    (home / ".keras").mkdir(parents=True)
    (home / ".keras/keras.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))


def as_keras_reads_it():
    """What Keras's own module of settings comes to."""
    read = runpy.run_path(keras.src.backend.config.__file__)
    return [read[name]() for name in ("floatx", "epsilon", "image_data_format", "backend", "is_nnx_enabled")]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home; nothing of Keras's is set."""
    for name in [name for name in os.environ if name.startswith("KERAS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_nothing_of_another_programs_keras_json_decides_anything(home, monkeypatch, settings):
    usual = ["float32", 1e-7, "channels_last", "tensorflow", False]
    settings_file(home, settings)
    if isinstance(settings, dict) and "nnx_enabled" not in settings:
        with contextlib.suppress(ValueError):
            assert as_keras_reads_it() != usual
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with keras_by_itself():
        assert as_keras_reads_it() == usual
    assert {name: os.environ.get(name) for name in (*VARIABLES, "KERAS_HOME")} == {
        **VARIABLES, "KERAS_BACKEND": "tensorflow", "KERAS_HOME": None}


def test_keras_that_was_imported_before_is_set_right(home):
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    keras.config.set_epsilon(0.1)
    assert settle(keras) is None
    assert [keras.config.floatx(), keras.config.image_data_format(), keras.config.epsilon()] == [
        "float32", "channels_last", 1e-7]
    assert keras.src.backend.config.keras_home() == str(home / ".keras")  # where it downloads to, as ever


def test_where_keras_downloads_to(home, monkeypatch):
    assert keras_home() == home / ".keras"
    monkeypatch.setenv("KERAS_HOME", "/else")
    assert keras_home() == Path("/else")
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert keras_home() == Path("/tmp/.keras")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a user without an entry, as in many containers
    assert keras_home() == Path("/tmp/.keras")


@pytest.fixture
def open_folder():
    """A folder that every user reaches, which is not so of pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.slow
def test_a_run_of_nobody_in_a_strange_place(open_folder):
    """A user without an entry in passwd, a home that can't be written and is another program's, no folder any more."""
    home, work, scratch = (open_folder / name for name in ("home", "work", "scratch"))
    settings_file(home, {"floatx": "float16", "epsilon": 1, "backend": "torch", "image_data_format": "channels_first"})
    (open_folder / "strange.py").write_text(STRANGE)
    for folder in (work, scratch, work / "started"):
        folder.mkdir()
    as_nobody = []
    if os.getuid() == 0:
        for folder in (work, scratch, work / "started"):
            os.chown(folder, 12345, 12345)
        may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # Python may lie in root's home
        as_nobody = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *may_read]
    for folder in (home / ".keras", home):
        folder.chmod(0o555)
    variables = environment(HOME=str(home), TMPDIR=str(scratch), **VARIABLES)
    variables["PYTHONPATH"] += f":{open_folder}"
    done = subprocess.run(
        [*as_nobody, sys.executable, "-m", "trainer.main", "--dataset=shapes", "--model=strange:model", "--num_gpus=0",
         "--batch_size=16", "--max_steps=2", f"--model_dir={work}/run"], cwd=work / "started", env=variables,
        text=True, capture_output=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not (work / "started").exists() and not [path for path in scratch.iterdir() if path.is_dir()]
    exports = json.loads((work / "run/result.json").read_text())["exports"]
    assert set(exports) == {"h5", "keras", "saved_model"} and (work / "run/report/curves.png").exists()
    assert len({entry["accuracy"] for entry in exports.values()}) == 1


@pytest.fixture
def removed_folder(tmp_path):
    """This process is in a folder that is gone."""
    before = os.getcwd()
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    yield
    os.chdir(before)


def test_a_start_in_a_folder_that_is_gone(removed_folder, capsys):
    assert run_to_exit_code(print, "started") == 64
    out, err = capsys.readouterr()
    assert not out and "the folder that this is started in is gone" in err and "fix: " in err


def test_an_error_says_that_the_folder_is_gone(removed_folder, tmp_path):
    for path in ("../run/result.json", None):
        error = translate(OSError(errno.ENOENT, "No such file or directory", path))
        assert error.code == 74 and "the folder that this was started in is gone" in str(error)
        assert path is None or path in str(error)
    assert "gone" not in str(translate(OSError(errno.ENOENT, "No such file or directory", "/a/b")))


def test_a_folder_for_temporary_files_that_is_full_or_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    error = translate(OSError(errno.ENOSPC, "No space left on device", f"{tmp_path}/lockstep-abc/h5.json"))
    assert error.code == 74 and "TMPDIR" in error.fix and "lockstep-abc" in error.cause
    assert "TMPDIR" not in translate(OSError(errno.ENOSPC, "No space left on device", f"{tmp_path}/run/x")).fix
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.mkdtemp()
    assert "TMPDIR" in translate(caught.value).fix
