"""Validation chooses, what it chose is exported, and test is measured once: in real runs."""

import json
import shutil

import keras
import numpy as np
import pytest
import runs
from runs import finish

from trainer.config import Config
from trainer.data.dataset import load
from trainer.quality.predictions import Predictions
from trainer.reporting import jsonl
from trainer.storage.manifest import peek_manifest, write_manifest

# A rate so high that the accuracy goes up and down: the best evaluation is not the last.
FLAGS = ("--dataset=small_data:few", "--model=small_models:normalized", "--batch_size=64", "--max_steps=24",
         "--optimizer=sgd", "--learning_rate=2", "--eval_every_epochs=0.2", "--num_gpus=0", "--virtual_devices=2",
         "--export=h5")
HELD_BACK = "--validation_fraction=0.2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, output) of a run with a validation split."""
    folder = tmp_path_factory.mktemp("trained")
    out, _ = finish(runs.start(folder, *FLAGS, HELD_BACK), 0)
    return folder, out


@pytest.fixture
def copy(trained, tmp_path):
    """A folder with a copy of that run."""
    shutil.copytree(trained[0] / "run", tmp_path / "run")
    return tmp_path


def result(folder):
    return json.loads((folder / "run/result.json").read_text())


def accuracy_of(path):
    """The accuracy of an exported model on the test split."""
    test = load(Config(dataset="small_data:few", validation_fraction=0.2)).test
    model = keras.models.load_model(path, compile=False)
    return np.mean(model.predict(test.images.astype(np.float32), verbose=0).argmax(1) == test.labels)


def test_what_validation_chose_is_exported_and_tested(trained):
    folder, out = trained
    ended = result(folder)
    evaluations = {line["step"]: line for line in jsonl.read(folder / "run/metrics.jsonl") if line["split"] == "eval"}
    best = max(evaluations, key=lambda step: evaluations[step]["accuracy"])
    assert best != 24, "the last evaluation is the best: this run shows nothing"
    assert (ended["selected_on"], ended["eval_split"], ended["exported_step"], ended["step"]) == (
        "validation", "validation", best, 24)
    assert ended["test_accuracy"] == ended["exports"]["h5"]["accuracy"] == accuracy_of(folder / "run/export/model.h5")
    assert {line["examples"] for line in evaluations.values()} == {260}
    assert f"chosen: step {best:,}, the best on validation; its test accuracy, measured once: " in out
    said = {name: Predictions.read(folder / f"run/{name}.npz") for name in ("predictions", "predictions_validation")}
    assert [(each.split, each.step) for each in said.values()] == [("test", best), ("validation", best)]
    assert said["predictions"].accuracy == ended["test_accuracy"] == ended["quality"]["accuracy"]
    assert said["predictions_validation"].accuracy == ended["best"]["accuracy"] and ended["quality"]["temperature"] > 0
    assert "1,020 images to train on" in out and "260 to validate on, held back, 200 to test on" in out


def test_the_last_weights_are_exported_if_they_are_asked_for(copy):
    finish(runs.start(copy, *FLAGS, HELD_BACK, "--export_checkpoint=last", "--calibrate_export"), 0)
    ended = result(copy)
    (layer,) = [layer for layer in keras.models.load_model(copy / "run/export/model.h5", compile=False).layers
                if layer.name == "temperature"]
    assert layer.scale == pytest.approx(1 / ended["quality"]["temperature"])
    assert (ended["exported_step"], ended["selected_on"]) == (24, None)
    assert ended["test_accuracy"] == accuracy_of(copy / "run/export/model.h5")


def test_the_commands_use_what_the_run_exports(copy, run):
    ended = result(copy)
    answers = {split: json.loads(run("trainer", "evaluate", "--model_dir=run", "--json", f"--split={split}").out)
               for split in ("auto", "test")}
    assert {answer["step"] for answer in answers.values()} == {ended["exported_step"]}
    assert answers["auto"]["split"] == "validation"
    assert answers["auto"]["eval_accuracy"] == ended["best"]["accuracy"]
    assert answers["test"]["eval_accuracy"] == ended["test_accuracy"]


def test_a_best_checkpoint_that_is_gone_is_named_with_the_way_out(copy):
    best = result(copy)["exported_step"]
    (copy / f"run/checkpoints/step-{best:08d}/state.index").write_bytes(b"")
    _, err = finish(runs.start(copy, *FLAGS, HELD_BACK), 74)
    assert f"checkpoint of step {best} is damaged" in err and "--export_checkpoint=last" in err


def test_nothing_is_calibrated_on_the_test_split(tmp_path):
    _, err = finish(runs.start(tmp_path, *FLAGS, "--calibrate_export"), 64)
    assert "--calibrate_export fits a temperature on the validation split; this data has none" in err


def test_patience_on_a_test_split_is_said(tmp_path):
    out, _ = finish(runs.start(tmp_path, *FLAGS, "--patience=1"), 0)
    ended = result(tmp_path)
    assert "no better test accuracy in 1 evaluations" in ended["ended_early"] and ended["selected_on"] == "test"
    assert ended["exported_step"] == ended["best"]["step"] < ended["step"]
    assert ended["test_accuracy"] == ended["best"]["accuracy"] == ended["exports"]["h5"]["accuracy"]
    assert "the best on test" in out


def test_a_run_whose_images_were_held_back_in_another_way_is_refused(copy):
    newest = max((copy / "run/checkpoints").glob("step-*"))
    manifest, _ = peek_manifest(newest)
    write_manifest(newest, {**manifest, "bits": {**manifest["bits"], "splits": 1}})
    _, err = finish(runs.start(copy, *FLAGS, HELD_BACK), 64)
    assert "splits: the run has version 1, its data needs 2 by now: other images would be evaluated" in err


def test_a_run_ends_when_its_hours_are_over_and_goes_on_with_more(tmp_path):
    timed, whole = tmp_path / "timed", tmp_path / "whole"
    timed.mkdir(), whole.mkdir()
    flags = [flag for flag in FLAGS if not flag.startswith(("--max_steps", "--export"))]
    out, _ = finish(runs.start(timed, *flags, "--epochs=1e6", "--max_hours=0.001", "--export=h5"), 0)
    ended = result(timed)
    assert ended["ended_early"] == "--max_hours=0.001 were over" and f"ended at step {ended['step']:,}: --max_h" in out
    assert ended["eval_accuracy"] == ended["exports"]["h5"]["accuracy"]
    finish(runs.start(timed, *flags, "--epochs=1e6", "--max_hours=0.001", "--export=none"), 0)
    assert result(timed)["step"] == ended["step"], "its hours were over"
    more = f"--max_steps={ended['step'] + 3}"
    for folder in (timed, whole):
        finish(runs.start(folder, *flags, "--epochs=1e6", more, "--max_hours=1", "--export=none"), 0)
    (name, variables), (other_name, others) = runs.state(timed), runs.state(whole)
    assert name == other_name
    for variable, value in variables.items():
        np.testing.assert_array_equal(value, others[variable], err_msg=variable)


def test_hours_that_are_over_before_the_first_step_leave_a_run_that_goes_on(tmp_path):
    """Nothing is trained: the first weights are evaluated, saved and exported."""
    flags = [flag for flag in FLAGS if not flag.startswith(("--max_steps", "--export"))]
    finish(runs.start(tmp_path, *flags, "--max_hours=1e-9", "--export=h5"), 0)
    ended = result(tmp_path)
    assert ended["step"] == 0 and ended["eval_accuracy"] == ended["exports"]["h5"]["accuracy"]
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000000"]
    finish(runs.start(tmp_path, *flags, "--max_hours=1", "--max_steps=3", "--export=none"), 0)
    assert result(tmp_path)["step"] == 3
