"""`lockstep` from a folder with modules of the names that it imports: they are another program's."""

import os
import subprocess
import sys

import pytest
from conftest import environment

from trainer.process import user_code
from trainer.process.libraries.children import command_of

OTHERS = ("trainer", "launch", "keras", "tensorflow", "numpy", "rich", "html", "json")
MODEL = "from small_models import compact\nassert __import__('os').getcwd() == __import__('sys').path[0]\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with modules that end whatever imports them, and a model of a user's."""
    for name in OTHERS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the folder was imported')\n")
    (tmp_path / "mine.py").write_text(MODEL)
    return tmp_path


def run(folder, *command):
    ended = subprocess.run(command, cwd=folder, env=environment(), text=True, capture_output=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_command_trains_evaluates_and_exports_there(folder):
    program = folder.parent / "lockstep"  # what pip writes
    program.write_text("import sys\nfrom trainer.__main__ import program\nsys.exit(program())\n")
    out = run(folder, sys.executable, program, "train", "--dataset=small_data:few", "--model=mine:compact",
              "--num_gpus=0", "--max_steps=2", "--batch_size=64", "--export=keras", "--model_dir=run")
    assert "after" in out and (folder / "run/export/model.keras").exists()


@pytest.mark.parametrize("module", ["trainer", "trainer.main", "launch.local"])
def test_what_it_starts_is_its_own(folder, module):
    assert "--" in run(folder, *command_of(module), "--help")


def test_python_m_finds_its_libraries_too(folder):
    for name in ("trainer", "launch"):  # Python itself takes these; nothing of this package has run by then
        os.remove(folder / f"{name}.py")
    assert "--flagfile" in run(folder, sys.executable, "-m", "trainer.main", "--help")


def test_a_users_module_comes_first_and_the_folder_last(folder, monkeypatch):
    (folder / "gzip.py").write_text("def model(classes, image_shape): return 'mine'\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "gzip", raising=False)
    found = user_code.function_of("model", "gzip:model", ("classes", "image_shape"))
    assert found(1, 2) == "mine" and sys.path[-1] == str(folder) and sys.path.count(str(folder)) == 1
    monkeypatch.delitem(sys.modules, "gzip")
