"""What may change when a run goes on, flag by flag; and what is said where its settings are gone."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import Config
from trainer.errors import DataError, UsageError
from trainer.options import shown_value
from trainer.storage import bit_versions
from trainer.storage.manifest import seal, write_manifest
from trainer.storage.model_dir import ModelDir, ScratchDir

OTHER = {"seed": 1, "num_gpus": 0, "virtual_devices": 2, "strategy": "mirrored", "precision": "bfloat16", "xla": "on",
         "tf32": "off", "deterministic": True, "all_reduce": "bfloat16",
         "start_timeout": 9.0, "hang_timeout": 8.0,
         "dataset": "shapes", "data_dir": "elsewhere", "batch_size": 64, "augment": ("flip",), "model": "cnn2",
         "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.8, "weight_decay": 0.1, "schedule": "cosine",
         "warmup_epochs": 1.0, "label_smoothing": 0.1, "clip_norm": 1.0, "epochs": 12.0, "max_steps": 7,
         "max_hours": 0.5,
         "eval_every_epochs": 2.0, "log_every_steps": 7, "patience": 3, "target_accuracy": 0.9,
         "checkpoint_every_steps": 7, "checkpoint_every_minutes": 1.0, "keep_checkpoints": 1, "max_bad_steps": 3,
         "spike_factor": 3.0, "profile_steps": "10-20", "ledger": True, "export": ("h5",), "export_checkpoint": "best",
         "resize": "pad", "ema_decay": 0.9, "drop_path": 0.1, "accumulate_steps": 2, "microbatch": "auto",
         "sync_batch_norm": True, "scale_learning_rate": "linear", "lookahead_steps": 5,
         "bias_learning_rate_scale": 64.0, "head_learning_rate": 0.1, "layer_decay": 0.8, "lookahead_alpha": 0.8,
         "calibrate_export": True, "train_sizes": ("16",), "init_from": "x.keras", "freeze": "conv.*",
         "image_size": 64, "validation_fraction": 0.2, "max_bad_records": 3, "class_weights": "balanced", "lanes": 32,
         "input": "host", "dry_run": True, "loss": "focal", "sampling": "balanced", "log_gradient_norm": True,
         "metrics": ("m:f",), "trackers": ("wandb",), "notify": "true"}
# What decides no bit of the state after a step: devices, lengths, and what is told, how often.
MAY_CHANGE = {"num_gpus", "virtual_devices", "strategy", "precision", "xla", "data_dir", "epochs", "max_steps",
              "max_hours", "tf32", "deterministic", "all_reduce", "start_timeout", "hang_timeout",
              "patience", "target_accuracy", "checkpoint_every_steps", "checkpoint_every_minutes", "keep_checkpoints",
              "max_bad_steps", "spike_factor", "eval_every_epochs", "log_every_steps", "ledger", "export",
              "export_checkpoint", "calibrate_export", "profile_steps", "max_bad_records", "input", "dry_run",
              "log_gradient_norm", "metrics", "trackers", "notify"}


@pytest.fixture
def folder(tmp_path):
    """Makes the folder of a run with one checkpoint."""
    def make(config):
        model_dir = ModelDir(tmp_path / "run")
        checkpoint = model_dir.checkpoints / "step-00000007"
        checkpoint.mkdir(parents=True)
        seal(checkpoint, {"step": 7, "settings": json.loads(config.to_json())})
        model_dir.write_config(config, {"data": {"classes": ["a", "b"], "image_shape": [8, 8, 3]}})
        return model_dir

    return make


def claim(model_dir, config):
    try:
        return model_dir.claim(config)
    finally:
        model_dir.unlock()


def test_every_setting_is_tried_here():
    assert set(OTHER) == {field.name for field in dataclasses.fields(Config)} - {"model_dir", "resume"}
    for name, value in OTHER.items():
        assert value != getattr(Config(), name), name
    assert not [problem for name, value in OTHER.items() for problem in Config(**{name: value}).problems()]


@pytest.mark.parametrize("name", OTHER)
def test_a_changed_setting_is_told_or_refused(folder, name):
    before = Config(model_dir="x")
    model_dir, changed = folder(before), dataclasses.replace(before, **{name: OTHER[name]})
    if name in MAY_CHANGE:
        assert claim(model_dir, changed) == [(name, getattr(before, name), OTHER[name])]
    else:
        with pytest.raises(UsageError) as caught:
            claim(model_dir, changed)
        values = f"the run has {shown_value(getattr(before, name))}, received {shown_value(OTHER[name])}"
        assert f"--{name}: {values}" in str(caught.value)


@pytest.mark.parametrize("name", ["epochs", "max_steps"])
def test_the_length_of_a_run_may_not_change_where_its_schedule_follows_from_it(folder, name):
    before = Config(model_dir="x", schedule="cosine")
    with pytest.raises(UsageError, match=f"--{name}"):
        claim(folder(before), dataclasses.replace(before, **{name: OTHER[name]}))


def test_all_that_is_refused_is_listed_at_once(folder):
    before = Config(model_dir="x")
    with pytest.raises(UsageError) as caught:
        claim(folder(before), dataclasses.replace(before, seed=1, epochs=12, batch_size=64))
    assert len(caught.value.problems) == 3


def test_without_config_json_the_checkpoints_know_the_settings(folder):
    before = Config(model_dir="x")
    model_dir = folder(before)
    model_dir.config.unlink()
    assert claim(model_dir, before) == []
    with pytest.raises(UsageError, match="--seed"):
        claim(model_dir, dataclasses.replace(before, seed=1))
    (model_dir.checkpoints / "step-00000007/manifest.json").write_text("{}")
    with pytest.raises(DataError, match="neither config.json nor a manifest"):
        claim(model_dir, before)


def test_what_is_not_given_is_as_the_run_has_it(folder):
    model_dir = folder(Config(model_dir="x", batch_size=32, validation_fraction=0.2, max_steps=5))
    inherited = model_dir.inherit(Config(model_dir="x", max_steps=7))
    assert (inherited.batch_size, inherited.validation_fraction, inherited.max_steps) == (32, 0.2, 7)
    assert claim(model_dir, inherited) == [("max_steps", 5, 7)]
    assert model_dir.inherit(Config(batch_size=64)).batch_size == 64  # which `claim` refuses
    (model_dir.checkpoints / "step-00000007/manifest.json").unlink()
    assert model_dir.inherit(Config()).batch_size is None  # a new run


def test_a_scratch_folder_lies_beside_the_runs_and_goes_with_what_was_made_for_it(tmp_path):
    scratch = ScratchDir(tmp_path / "runs/mine")
    assert scratch.root == tmp_path / "runs/.mine.dry_run"
    (scratch.root / "checkpoints/step-00000001").mkdir(parents=True)  # of a dry run that was killed
    scratch.timeline.write_text("{}")
    (tmp_path / "runs/other").mkdir()
    assert scratch.claim(Config()) == []
    assert [path.name for path in scratch.root.iterdir()] == [".lock"]
    scratch.unlock()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]
    alone = ScratchDir(tmp_path / "new/deep/run")
    alone.claim(Config())
    alone.unlock()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_where_nothing_was_saved_any_settings_begin_anew(folder):
    before = Config(model_dir="x")
    model_dir = folder(before)
    (model_dir.checkpoints / "step-00000007/manifest.json").unlink()
    assert claim(model_dir, dataclasses.replace(before, seed=1)) == []


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.binary(max_size=60), st.dictionaries(
    st.sampled_from(["given", "data", "epochs"]), st.none() | st.integers() | st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(Config)] + ["classes", "image_shape"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3)))
    .map(lambda value: json.dumps(value).encode())))
def test_whatever_config_json_holds(tmp_path_factory, text):
    model_dir = ModelDir(tmp_path_factory.mktemp("any"))
    model_dir.config.write_bytes(text)
    with pytest.raises(DataError, match="config.json can't be read"):
        model_dir.read_config()


@pytest.mark.parametrize("bits, says", [
    ({"pixels": 9}, "pixels: the run has version 9, this Lockstep knows 1"),
    ({"draws": 4}, "draws: the run has version 4, this Lockstep knows 1 and 2 and 3"),
    ({"colours": 1}, "colours: the run has version 1, this Lockstep knows none")])
def test_a_run_that_would_not_go_on_as_it_began_is_refused(folder, bits, says):
    model_dir = folder(Config())
    manifest = {"step": 7, "settings": {}, "files": {}, "bits": bits}
    write_manifest(model_dir.checkpoints / "step-00000007", manifest)
    with pytest.raises(UsageError, match=says):
        claim(model_dir, Config())


def test_a_run_from_before_there_were_versions_has_version_1_of_all():
    assert set(bit_versions.of_manifest({"step": 7}).values()) == {1}
    assert bit_versions.of_manifest({"bits": bit_versions.CURRENT}) == bit_versions.CURRENT


def test_a_run_of_an_older_version_without_its_data_folder_can_be_read(folder):
    model_dir = folder(Config(dataset="folder", data_dir=""))
    assert model_dir.read_config()["given"]["dataset"] == "folder"


def test_what_a_run_decided_is_read_from_its_newest_sound_manifest(folder):
    model_dir = folder(Config())
    assert model_dir.decided("microbatch") is None
    for step, decided in ((8, {"microbatch": 32}), (9, {"microbatch": 64})):
        checkpoint = model_dir.checkpoints / f"step-{step:08d}"
        checkpoint.mkdir()
        write_manifest(checkpoint, {"step": step, "files": {}, "decided": decided})
    assert model_dir.decided("microbatch") == 64 and model_dir.decided("length") is None
    (model_dir.checkpoints / "step-00000009/manifest.json").write_text("{}")
    assert model_dir.decided("microbatch") == 32
