"""Checkpoints: all of the state comes back, damage is found, and the one before is used."""

import json
import os
import shutil

import numpy as np
import pytest
from cases import long

from trainer.checkpoint.checkpoints import Checkpoints
from trainer.errors import DataError, StorageError, UsageError


def values(made):
    return [variable.numpy() for variable in made.state.variables().values()]


@pytest.fixture
def saved(trainable, tmp_path):
    """A training loop with three checkpoints, at steps 2, 4 and 6, and what the state was at each."""
    made = trainable(2)
    checkpoints, states = Checkpoints(tmp_path / "checkpoints"), {}
    for step in (2, 4, 6):
        made.train(2)
        states[step] = values(made)
        checkpoints.save(made.state.snapshot(), {"evaluation": {"accuracy": {2: 0.3, 4: 0.5, 6: 0.4}[step]}})
    return made, checkpoints, states


def newest(checkpoints):
    warnings = []
    return checkpoints.newest_sound(warnings.append), warnings


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_all_of_the_state_comes_back_on_any_replica_count(saved, trainable, replicas):
    _, checkpoints, states = saved
    other = trainable(replicas, seed=1)
    manifest, warnings = newest(checkpoints)
    checkpoints.restore_all(other.state.variables(), manifest)
    assert not warnings and manifest["step"] == 6
    for was, now in zip(states[6], values(other), strict=True):
        np.testing.assert_array_equal(was, now)


def test_training_on_equals_training_through(saved, trainable):
    made, checkpoints, _ = saved
    through = made.train(3).loss
    resumed = trainable(2, seed=0, first_step=4)
    checkpoints.restore_all(resumed.state.variables(), checkpoints.find("4"))
    resumed.train(2)
    np.testing.assert_array_equal(resumed.train(3).loss, through)
    for was, now in zip(values(made), values(resumed), strict=True):
        np.testing.assert_array_equal(was, now)


def every_file(saved):
    return sorted(path.name for path in saved[1].path(6).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name, damage", [
    ("manifest.json", "flip"), ("state.index", "cut"), ("state.data-00000-of-00001", "flip"),
    ("state.data-00000-of-00001", "remove"), *(long(*each) for each in (
        ("manifest.json", "cut"), ("manifest.json", "empty"), ("manifest.json", "remove"), ("state.index", "flip"),
        ("state.index", "empty"), ("state.index", "remove"), ("state.data-00000-of-00001", "cut"),
        ("state.data-00000-of-00001", "empty")))])
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used(saved, name, damage):
    _, checkpoints, _ = saved
    assert name in every_file(saved) and len(every_file(saved)) == 3
    path = checkpoints.path(6) / name
    data = bytearray(path.read_bytes())
    if damage == "flip" and name != "manifest.json":
        data[len(data) // 2] ^= 4
    elif damage == "flip":
        data[data.index(b'sha256": "') + 12] ^= 1
    else:
        data = data[:{"cut": len(data) - 1, "empty": 0, "remove": 0}[damage]]
    path.write_bytes(data)
    if damage == "remove":
        path.unlink()
    manifest, warnings = newest(checkpoints)
    assert manifest["step"] == 4
    if (name, damage) != ("manifest.json", "remove"):  # without a manifest it never was a checkpoint
        assert len(warnings) == 1 and "step 6 is damaged" in warnings[0]


def test_what_is_learned_about_a_step_later_is_added_to_it(saved):
    made, checkpoints, _ = saved
    before = (checkpoints.path(6) / "state.index").stat().st_mtime_ns
    checkpoints.update_manifest(6, {"evaluation": {"accuracy": 0.7}})
    checkpoints.save(made.state.snapshot(), {"evaluation": {"accuracy": 0.9}})
    manifest, warnings = newest(checkpoints)
    assert not warnings and manifest["evaluation"]["accuracy"] == 0.9 and checkpoints.best_step() == 6
    assert (checkpoints.path(6) / "state.index").stat().st_mtime_ns == before


def test_a_checkpoint_of_another_model(saved, trainable):
    _, checkpoints, _ = saved
    for other in (trainable(1, model="small_models:smooth"), trainable(1, optimizer="sgd"),
                  trainable(1, optimizer="lion"), trainable(1, optimizer="lamb")):
        before = values(other)
        with pytest.raises(UsageError, match="is of another model or optimizer"):
            checkpoints.restore_all(other.state.variables(), checkpoints.find("latest"))
        for was, now in zip(before, values(other), strict=True):
            np.testing.assert_array_equal(was, now)


@pytest.mark.slow
@pytest.mark.parametrize("text", [
    '{"step": 6, "files": {}}', "[]", *(long(each) for each in (
        "{}", "3", '{"content_sha256": "x"}'))])
def test_a_manifest_of_something_else_does_not_count(saved, text):
    _, checkpoints, _ = saved
    (checkpoints.path(6) / "manifest.json").write_text(text)
    manifest, warnings = newest(checkpoints)
    assert manifest["step"] == 4 and "its manifest is not what was written" in warnings[0]


def test_a_changed_number_in_a_manifest_is_found(saved):
    _, checkpoints, _ = saved
    path = checkpoints.path(6) / "manifest.json"
    path.write_text(path.read_text().replace('"accuracy": 0.4', '"accuracy": 0.9'))
    assert newest(checkpoints)[0]["step"] == 4 and checkpoints.best_step() == 4


def test_nothing_sound_is_left(saved):
    _, checkpoints, _ = saved
    for step in checkpoints.steps():
        (checkpoints.path(step) / "state.index").write_bytes(b"")
    with pytest.raises(StorageError, match="all 3 checkpoints"):
        newest(checkpoints)


def test_no_checkpoints(tmp_path):
    assert newest(Checkpoints(tmp_path / "none")) == (None, [])


def test_the_newest_and_the_best_are_kept(saved):
    made, checkpoints, _ = saved
    for accuracy in (0.1, 0.2, 0.3, 0.45):
        made.train(1)
        checkpoints.save(made.state.snapshot(), {"evaluation": {"accuracy": accuracy}})
    assert checkpoints.steps() == [4, 8, 9, 10] and checkpoints.best_step() == 4
    made.train(1)
    checkpoints.save(made.state.snapshot(), {"evaluation": {"accuracy": 0.6}})
    assert checkpoints.steps() == [9, 10, 11] and checkpoints.best_step() == 11


def test_names_of_checkpoints(saved):
    _, checkpoints, _ = saved
    assert [checkpoints.find(name)["step"] for name in ("latest", "best", "2")] == [6, 4, 2]
    for name in ("3", "newest"):
        with pytest.raises(DataError, match="there are, the newest first: 6, 4, 2"):
            checkpoints.find(name)


def test_leftovers_are_cleared(saved):
    _, checkpoints, _ = saved
    os.remove(checkpoints.path(6) / "manifest.json")
    for name in ("step-00000004.bak", "step-4", "step-x"):
        shutil.copytree(checkpoints.path(4), checkpoints.folder / name)
    checkpoints.clear_leftovers()
    assert not checkpoints.path(6).exists() and checkpoints.steps() == [2, 4]
    assert (checkpoints.folder / "step-00000004.bak/state.index").exists()


def test_the_manifest_names_every_file_and_its_hash(saved):
    import hashlib

    _, checkpoints, _ = saved
    manifest = json.loads((checkpoints.path(6) / "manifest.json").read_text())
    assert set(manifest["files"]) == {"state.index", "state.data-00000-of-00001"}
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256((checkpoints.path(6) / name).read_bytes()).hexdigest()
