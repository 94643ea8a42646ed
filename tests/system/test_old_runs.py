"""Runs that an older version began and this one goes on with; see tests/fixtures/e1360bb/README.md."""

import json
import shutil

import pytest
from conftest import ROOT
from event_files import scalars
from runs import finish, ledger, reported, start

from trainer.data.dataset import digest
from trainer.data.sources import shapes

OLD = ROOT / "tests/fixtures/e1360bb"


@pytest.fixture(params=["cnn3", "regularized"])
def old_run(request, tmp_path):
    """(a folder with a copy of the stopped run, its flags, what a run that nothing disturbed wrote)."""
    folder = tmp_path / request.param
    shutil.copytree(OLD / request.param, folder)
    shutil.copytree(OLD / "pictures", tmp_path / "pictures")
    return folder, json.loads((folder / "flags.json").read_text())


def draws_as_then():
    """Whether this processor draws the shapes as the one that the run began on: NumPy's sine rounds by its vectors."""
    parts = json.loads((OLD / "cnn3/run/config.json").read_text())["data"]["parts"]
    return digest(*shapes.render_images(0, 0, shapes.TRAIN)) == parts["train"]


def test_a_run_of_e1360bb_goes_on_as_it_would_have(old_run):
    folder, flags = old_run
    if "--dataset=shapes" in flags and not draws_as_then():
        _, err = finish(start(folder, *flags), 65)
        assert "the data is not what it was when this run began: " in err and "train is another one" in err
        return
    out, _ = finish(start(folder, *flags), 0)
    assert "resuming from step" in out
    undisturbed = folder / "undisturbed"
    shutil.copytree(folder / "expected", undisturbed / "run")
    assert ledger(folder) == ledger(undisturbed)
    mine, theirs = reported(folder), reported(undisturbed)
    assert [(line["step"], line["split"]) for line in mine] == [(line["step"], line["split"]) for line in theirs]
    for line, wanted in zip(mine, theirs, strict=True):
        # Another processor's kernels round otherwise, and the last bits grow.
        assert line["loss"] == pytest.approx(wanted["loss"], rel=2e-3), line["step"]
    steps = scalars(folder / "run/tensorboard", "train", "loss")  # under its old tag
    assert len(steps) == len(set(steps)) > 1
