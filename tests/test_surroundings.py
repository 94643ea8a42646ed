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
from conftest import ROOT, environment

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


# Takes away what only Linux has, in every Python process that finds this on its path.
ANOTHER_SYSTEM = """
import builtins, ctypes, errno, io, os
class Library(ctypes.CDLL):
    def __getattr__(self, name):
        if name in ("prctl", "mallopt", "renameat2", "aio_read"):
            raise AttributeError(name)
        return super().__getattr__(name)
ctypes.CDLL = Library
for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "memfd_create", "pipe2"):
    if hasattr(os, name):
        delattr(os, name)
def without_proc(call):
    def called(path, *words, **more):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return call(path, *words, **more)
    return called
builtins.open = io.open = without_proc(open)
os.readlink, os.listdir = without_proc(os.readlink), without_proc(os.listdir)
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
    """A user without an entry in passwd, a home that can't be written and is another program's, no folder any more, and
    nothing of what only Linux has."""
    home, work, scratch = (open_folder / name for name in ("home", "work", "scratch"))
    settings_file(home, {"floatx": "float16", "epsilon": 1, "backend": "torch", "image_data_format": "channels_first"})
    (open_folder / "strange.py").write_text(STRANGE)
    (open_folder / "sitecustomize.py").write_text(ANOTHER_SYSTEM)
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
         "--batch_size=16", "--max_steps=2", "--export=h5,keras", f"--model_dir={work}/run"], cwd=work / "started",
        env=variables, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not (work / "started").exists() and not [path for path in scratch.iterdir() if path.is_dir()]
    exports = json.loads((work / "run/result.json").read_text())["exports"]
    assert set(exports) == {"h5", "keras"} and (work / "run/report/curves.png").exists()
    assert len({entry["accuracy"] for entry in exports.values()}) == 1


@pytest.mark.slow
def test_children_start_where_only_linux_calls_are_missing(tmp_path):
    """The launchers' part of that: what runs in a child before its program does."""
    (tmp_path / "sitecustomize.py").write_text(ANOTHER_SYSTEM)
    code = ("import ctypes, os, sys\nfrom launch import cores\nfrom launch.workers import agent, child_process\n"
            "assert not hasattr(ctypes.CDLL(None), 'prctl') and cores.shares(2) == [(), ()]\n"
            "child_process.prepare_child([0])\nchild_process.raise_file_limit()\nassert agent._stopped(1) is None\n"
            "from launch.sweep import job\nsys.argv = ['', str(os.getppid()), '0', sys.executable, '-c', 'print(7)']\n"
            "exec(job._TETHERED)")
    variables = environment()
    variables["PYTHONPATH"] += f":{tmp_path}"
    done = subprocess.run([sys.executable, "-c", code], env=variables, text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


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


@pytest.mark.slow
@pytest.mark.parametrize("version, accepted", [((3, 10, 13), False), ((3, 11, 0), True), ((3, 13, 9), True),
                                               ((3, 14, 0), False)])
def test_make_takes_the_pythons_that_tensorflow_has_wheels_for(tmp_path, version, accepted):
    for name in ("Makefile", "pyproject.toml", "trainer/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    number = ".".join(map(str, version))
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
[ "$1" = -c ] || {{ echo "asked for $*"; exit 7; }}
exec {sys.executable} -c "import sys; sys.version_info, sys.version = {version}, '{number} x'; exec(sys.argv[1])" "$2"
""")
    python.chmod(0o755)
    done = subprocess.run(["make", f"PYTHON={python}", ".venv/installed"], cwd=tmp_path, text=True,
                          capture_output=True)
    assert ("asked for -m venv" in done.stdout) == accepted, done.stdout + done.stderr
    refusal = f"Keras 3.15 are for Python 3.11 to 3.13; this is {number}; name another: make PYTHON="
    assert (refusal in done.stderr) != accepted


def test_the_same_pythons_are_named_everywhere():
    settings = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.11,<3.14"' in settings
    for minor in range(11, 14):
        assert f"Programming Language :: Python :: 3.{minor}" in settings
    for name in ("README.md", "CONTRIBUTING.md", "Makefile"):
        assert "Python 3.11 to 3.13" in (ROOT / name).read_text(), name
