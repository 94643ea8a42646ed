"""Libraries that are newer than what was tested: said before it happens."""

import subprocess
import sys

import pytest
from conftest import ROOT

from trainer.process.libraries import versions


@pytest.mark.parametrize("installed, said", [
    ({"tensorflow": "2.21.0", "keras": "3.15.1"}, []), ({"tensorflow": "2.20.1", "keras": "3.9"}, []), ({}, []),
    ({"keras": "3.16.0"}, ["keras 3.16.0 is newer than 3.15.1"]), ({"keras": "4.0.0rc1"}, ["keras 4.0.0rc1"]),
    ({"tensorflow": "2.22.0.dev20261101", "keras": "3.15.2"}, ["tensorflow 2.22.0.dev", "keras 3.15.2"])])
def test_newer_libraries_than_tested_are_named(monkeypatch, installed, said):
    monkeypatch.setattr(versions, "installed", installed.get)
    found = versions.warnings()
    assert len(found) == len(said) and all(line.startswith(start) for line, start in zip(found, said, strict=True))


@pytest.mark.slow
def test_a_run_says_so_before_it_imports_them(tmp_path):
    code = ("import sys\nfrom trainer.process.libraries import versions\nversions.installed = {'keras': '9.9'}.get\n"
            "from trainer import main\nfrom trainer.errors import UsageError\n"
            "def refuse(*_, **__): assert 'keras' not in sys.modules; raise UsageError('so far')\n"
            "main.initialize = refuse\nsys.exit(main.main(['--model_dir=run', '--dataset=shapes']))")
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True,
                           env={"PYTHONPATH": str(ROOT)})
    assert ended.returncode == 64 and "warning: keras 9.9 is newer than 3.15.1, with which" in ended.stderr
