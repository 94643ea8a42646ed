"""The short form of torture.py: some of the places where it kills. Random moments are in `make torture` alone."""

import shutil

import pytest
import torture
from torture import EXPORT, FLAGS, NO_EXPORT


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler to intercept what a run does to its files: apt-get install gcc libc6-dev")
    return torture.Killer(tmp_path_factory.mktemp("killer"))


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return torture.undisturbed(tmp_path_factory.mktemp("torture") / "truth", (*FLAGS, NO_EXPORT))


@pytest.fixture(scope="module")
def counted(killer, tmp_path_factory):
    """(folder of a run that wasn't disturbed, what it did to its files)."""
    folder = tmp_path_factory.mktemp("counted")
    return folder, killer.operations(folder, (*FLAGS, NO_EXPORT))


def places(operations, *wanted):
    """The number of the last operation of each kind, in order."""
    return sorted(max(number for number, operation in enumerate(operations, 1)
                      if all(part in operation for part in parts)) for parts in wanted)


def test_killed_while_saving(killer, truth, counted, tmp_path):
    """In the middle of the values, at the manifest's rename, while an old one is removed."""
    numbers = places(counted[1], ("fwrite", "step-00000012/state.data"), ("rename", "step-00000012/manifest"),
                     ("unlink", "step-00000006/manifest"))
    assert torture.sweep(killer, tmp_path / "run", (*FLAGS, NO_EXPORT), truth, numbers, afresh=True) == (3, 3)


@pytest.mark.long
def test_killed_while_exporting(killer, counted, tmp_path):
    whole = shutil.copytree(counted[0], tmp_path / "whole")
    operations = killer.operations(whole, (*FLAGS, EXPORT))
    numbers = places(operations, ("pwrite", "model.h5"), ("rename", "/export"))
    assert torture.sweep_export(killer, tmp_path / "run", counted[0], numbers) == 2
