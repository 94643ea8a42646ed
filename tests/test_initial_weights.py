"""`--init_from` and `--freeze`: weights of runs and files, new last layers, layers that keep what they have."""

import json
import shutil
import warnings

import keras
import numpy as np
import pytest
import runs
import small_models
from cases import long
from keras import layers

from trainer import models
from trainer.checkpoint.initial_weights import read_initial_weights
from trainer.errors import DataError, UsageError
from trainer.models.freezing import freeze
from trainer.train.step.averages import saved_variables

NAME, SHAPE = "keras:MobileNetV2", (32, 32, 3)
FLAGS = ("--dataset=small_data:few", "--model=small_models:normalized", "--batch_size=64", "--optimizer=sgd",
         "--num_gpus=0", "--eval_every_epochs=9", "--export=none", "--ledger")


def plain_network(classes=10):
    """A network as a user of Keras makes it, with weights and averages that are no defaults."""
    network = keras.applications.MobileNetV2(weights=None, input_shape=SHAPE, classes=classes,
                                             classifier_activation=None)
    rng = np.random.default_rng(0)
    network.set_weights([np.abs(value) + rng.uniform(0.01, 0.1, value.shape) for value in network.get_weights()])
    return network


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(a network, the folder with the files in which Keras saved it)."""
    network, folder = plain_network(), tmp_path_factory.mktemp("saved")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # .h5 is a legacy format
        network.save(folder / "model.h5")
    network.save(folder / "model.keras")
    network.save_weights(folder / "model.weights.h5")
    return network, folder


def read(name, model, classes=10):
    return read_initial_weights(str(name), model, saved_variables(model), [str(number) for number in range(classes)])


def assigned(model, found):
    for variable, value in zip(saved_variables(model), found.values, strict=True):
        if value is not None:
            variable.assign(value)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.h5", long("model.keras"), "model.weights.h5"])
def test_what_plain_keras_saved_answers_the_same(saved, name):
    network, folder = saved
    found = read(folder / name, models.build(NAME, 10, SHAPE))
    assert not found.source["new_last_layer"] and len(found.source["sha256"]) == 64
    ours = assigned(models.build(NAME, 10, SHAPE), found)
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.float32)
    expected = network(keras.applications.mobilenet_v2.preprocess_input(images.copy()))
    np.testing.assert_allclose(ours(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "model.h5", "model.weights.h5", long("model.keras")])
def test_another_number_of_classes_gets_a_new_last_layer(saved, name):
    model = models.build(NAME, 3, SHAPE)
    found = read(saved[1] / name, model, 3)
    assert found.source["new_last_layer"] and [value is None for value in found.values].count(True) == 2
    assert found.values[-1] is None and found.values[-2] is None
    assert "the last layer is new" in found.sentence()


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_weights_of_another_model_are_refused(saved, name):
    with pytest.raises(UsageError, match="weights of another model"):
        read(saved[1] / name, models.build("resnet20", 10, SHAPE))


def test_what_cannot_be_read_is_said(tmp_path):
    model = models.build("cnn3", 10, SHAPE)
    (tmp_path / "bad.keras").write_bytes(b"no zip")
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    (tmp_path / "model.pt").write_bytes(b"")
    for name, kind in (("bad.keras", DataError), ("bad.h5", DataError), ("nothing.h5", DataError), ("", DataError),
                       ("model.pt", UsageError)):
        with pytest.raises(kind) as refused:
            read(tmp_path / name, model)
        assert refused.value.fix, name


def test_nothing_in_a_file_is_executed(tmp_path):
    """A Lambda that Keras itself would run if it made the model."""
    marker = tmp_path / "executed"
    pixels = keras.Input(SHAPE)

    def attack(x):
        open(str(marker), "w").close()
        return x

    flat = layers.Flatten()(layers.Lambda(attack, output_shape=SHAPE)(pixels))
    evil = keras.Model(pixels, layers.Dense(10)(flat))
    evil.save(tmp_path / "evil.keras")
    marker.unlink(missing_ok=True)
    inner = keras.Input(SHAPE)
    model = keras.Model(inner, layers.Dense(10)(layers.Flatten()(layers.Rescaling(1.0)(inner))))
    found = read(tmp_path / "evil.keras", model)
    np.testing.assert_array_equal(found.values[0], evil.get_weights()[0])
    assert not marker.exists()


def test_published_weights_without_a_network_name_the_file(monkeypatch):
    def unreachable(**_):
        raise Exception("URL fetch failure on https://example.org/mobilenet_notop.h5: None -- no route to host")

    model = models.build(NAME, 10, SHAPE)
    monkeypatch.setattr(keras.applications, "MobileNetV2", unreachable)
    with pytest.raises(DataError) as refused:
        read("imagenet", model)
    assert "https://example.org/mobilenet_notop.h5" in refused.value.fix and "--init_from=FILE" in refused.value.fix
    with pytest.raises(UsageError, match="is for --model=keras:NAME"):
        read("imagenet", models.build("cnn3", 10, SHAPE))


@pytest.mark.slow
def test_published_weights_are_those_of_the_network_inside(monkeypatch):
    network, model = plain_network(), models.build(NAME, 10, SHAPE)
    make = keras.applications.MobileNetV2

    def published(weights, **more):
        made = make(weights=None, **more)
        made.set_weights(network.get_weights()[:-2])
        return made

    monkeypatch.setattr(keras.applications, "MobileNetV2", published)
    found = read("imagenet", model)
    assert [value is None for value in found.values] == [False] * (len(found.values) - 2) + [True] * 2
    for mine, theirs in zip(found.values[-40:-2], network.get_weights()[-40:-2], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_frozen_layers_and_the_last_one():
    model = models.build(NAME, 10, SHAPE)
    freeze(model, ".*")
    assert [variable.path.split("/")[-2:] for variable in model.trainable_variables] == [
        ["predictions", "kernel"], ["predictions", "bias"]]
    model = models.build(NAME, 10, SHAPE)
    freeze(model, "block_1_.*|Conv1")
    names = {variable.path.split("/")[-2] for variable in model.trainable_variables}
    assert "block_2_expand" in names and not names & {"block_1_expand", "Conv1"}
    for _ in range(2):  # Keras goes on counting: its names of the second model's layers are others
        model = small_models.normalized(10, SHAPE)
        freeze(model, "conv2d|conv2d_2|batch_normalization_1")
        assert [layer.trainable for layer in model.layers if layer.weights] == [False, True, True, False, False, True,
                                                                                True]
    model = models.build(NAME, 10, SHAPE)
    with pytest.raises(UsageError, match="matches no layer but the last") as refused:
        freeze(model, "predictions")
    assert "Conv1" in str(refused.value)


@pytest.mark.slow
def test_frozen_layers_keep_weights_and_averages(trainable):
    made = trainable(2, model="small_models:normalized", freeze="conv2d.*|batch.*", optimizer="sgd", learning_rate=0.1)
    before = made.weights()
    made.train(3)
    changed = [not np.array_equal(old, new) for old, new in zip(before, made.weights(), strict=True)]
    assert changed == [False] * (len(before) - 2) + [True] * 2


@pytest.mark.slow
def test_all_copies_of_the_weights_begin_with_them(trainable):
    state = trainable(2, model="small_models:normalized", ema_decay=0.9, lookahead_steps=2, optimizer="sgd").state
    values = [np.full(variable.shape, number, np.float32) for number, variable in enumerate(
        saved_variables(state.model))]
    state.set_weights([*values[:-1], None])
    for model in (state.model, state.averages.model):
        for variable, value in zip(saved_variables(model)[:-1], values[:-1], strict=True):
            np.testing.assert_array_equal(variable.value, value)
    assert not np.any(np.asarray(saved_variables(state.model)[-1].value) == len(values) - 1)
    for slow, variable in zip(state.optimizer._slow, state.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(slow.value, variable.value)


@pytest.mark.slow
def test_a_run_begins_with_anothers_weights_and_goes_on_without_it(tmp_path):
    first, whole, stopped = (tmp_path / name for name in ("first", "whole", "stopped"))
    for folder in (first, whole, stopped):
        folder.mkdir()
    runs.finish(runs.start(first, *FLAGS, "--max_steps=9", "--learning_rate=0.1"), 0)
    more = (*FLAGS, f"--init_from={first}/run", "--learning_rate=0.02", "--ema_decay=0.9", "--lookahead_steps=2",
            "--virtual_devices=2", "--checkpoint_every_steps=2", "--keep_checkpoints=9")
    out, _ = runs.finish(runs.start(whole, *more, "--max_steps=5"), 0)
    assert f"weights from {first}/run, step 9: " in out and "the last layer is new" not in out
    (tmp_path / "still").mkdir()
    still = (*FLAGS, f"--init_from={first}/run", "--learning_rate=1e-30", "--max_steps=1")
    runs.finish(runs.start(tmp_path / "still", *still), 0)
    (_, began), (_, ended) = runs.state(tmp_path / "still"), runs.state(first)
    for name in (name for name in ended if name.endswith(("kernel", "bias", "gamma", "beta"))):
        np.testing.assert_array_equal(began[name], ended[name], err_msg=name)
    runs.finish(runs.start(stopped, *more, "--max_steps=2"), 0)
    shutil.rmtree(first)
    runs.finish(runs.start(stopped, *more, "--max_steps=5"), 0)
    (name, values), (_, others) = runs.state(whole), runs.state(stopped)
    assert name == "step-00000005"
    for variable, value in values.items():
        np.testing.assert_array_equal(value, others[variable], err_msg=variable)
    source = json.loads((stopped / "run/result.json").read_text())["initialized_from"]
    assert source["path"] == f"{first}/run" and source["step"] == 9 and len(source["sha256"]) == 64
