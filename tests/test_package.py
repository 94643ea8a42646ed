"""What goes into the wheel, and the versions that it was tested with. `make package` builds and tries it."""

import re
from fnmatch import fnmatch

import keras
import pytest
import tensorflow as tf
import tomllib
from conftest import ROOT

from trainer import flags
from trainer.config import Config
from trainer.errors import UsageError
from trainer.process.libraries import versions

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("package", ["trainer", "launch"])
def test_every_file_of_the_packages_is_in_the_wheel(package):
    patterns = SETTINGS["tool"]["setuptools"]["package-data"][package]
    paths = [path for path in (ROOT / package).rglob("*")
             if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts]
    assert paths
    for path in paths:
        assert any(fnmatch(str(path.relative_to(ROOT / package)), pattern) for pattern in patterns), path
    for path in (ROOT / package).rglob("*.py"):  # find_packages leaves out what has no __init__.py
        assert (path.parent / "__init__.py").exists(), path


@pytest.mark.parametrize("words", [["--config=quickstart"], ["--config", "quickstart"],
                                   [f"--flagfile={ROOT}/configs/quickstart.cfg"]])
def test_a_config_of_the_package_is_a_file_of_flags(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = flags.parse(Config, ["--seed=3", *words, "--epochs=1"])
    assert (config.dataset, config.seed, config.epochs, config.batch_size) == ("shapes", 3, 1.0, 64)


@pytest.mark.parametrize("words", [["--config=quickest"], ["--config="], ["--config"], ["--config=../config"]])
def test_other_names_are_refused_with_those_there_are(words):
    with pytest.raises(UsageError, match="--config must be cnn2, cnn3, quickstart, resnet20, "
                       "resnet50-imagenet, speedrun; received"):
        flags.parse(Config, words)


def constraints():
    """(name, version, marker) of each line of constraints.txt, which all have hashes."""
    text = (ROOT / "constraints.txt").read_text()
    entries = re.findall(r"^([a-z0-9-]+)==(\S+)( ; [^\\]*)? \\\n    --hash=sha256:", text, re.M)
    assert len(entries) == len(re.findall(r"^[a-z]", text, re.M)) > 40
    return entries


def test_the_versions_that_are_named_as_tested_are_those_of_the_tests():
    assert {"tensorflow": tf.__version__, "keras": keras.__version__} == versions.TESTED
    locked = {name: version for name, version, _ in constraints()}
    assert {name: locked[name] for name in versions.TESTED} == versions.TESTED
    needed = {re.match(r"[a-z0-9-]+", line)[0] for line in SETTINGS["project"]["dependencies"]}
    assert needed <= locked.keys()
