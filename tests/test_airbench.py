"""The model of the speedrun, held against the paper's sentences and NumPy; its first weights from the data."""

import gpu_like
import keras
import numpy as np
import pytest
import runs

from trainer import models
from trainer.models.zoo import airbench
from trainer.train.resume import initialize_weights

SETTINGS = {"model": "airbench", "optimizer": "sgd", "learning_rate": 0.01, "bias_learning_rate_scale": 64.0,
            "augment": ("alternating_flip", "translate"), "label_smoothing": 0.2}
FLAGS = ("--dataset=small_data:few", "--model=airbench", "--batch_size=8", "--optimizer=sgd", "--learning_rate=0.01",
         "--bias_learning_rate_scale=8", "--augment=alternating_flip,translate", "--num_gpus=0", "--ledger",
         "--eval_every_epochs=0.025", "--log_every_steps=1")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (300, 5, 5, 3)).repeat(4, 1).repeat(4, 2)
    return (coarse * 0.8 + rng.integers(0, 50, (300, 20, 20, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def kernel(images):
    return airbench.weights_of_data(images)["whiten/kernel"]


def standardized(images):
    return (images / 255 - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616]


def test_the_first_layer_whitens_patches(images, kernel):
    """Each output has the second moment v / (v + 0.0005), and no two of the first twelve go together."""
    patches = np.lib.stride_tricks.sliding_window_view(standardized(images), (2, 2), (1, 2))  # [n, y, x, channel, 2, 2]
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 12)
    variances = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    outputs = patches @ kernel.reshape(12, 24)
    moments = outputs.T @ outputs / len(outputs)
    np.testing.assert_allclose(moments[:12, :12], np.diag(variances / (variances + 5e-4)), atol=1e-4)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])


def test_the_first_layer_is_the_same_however_images_are_ordered_and_cut(images, kernel, monkeypatch):
    monkeypatch.setattr(airbench, "_AT_ONCE", 5000)
    np.testing.assert_array_equal(airbench.weights_of_data(images[::-1])["whiten/kernel"], kernel)
    assert airbench.weights_of_data(images[..., :1])["whiten/kernel"].shape == (2, 2, 1, 8)


def test_the_network_is_the_papers():
    """Pools and norms as in figure 2; filters that pass their channel on; batch norm without factors; logits / 9."""
    model = models.build("airbench", 10, (32, 32, 3))
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Conv2D", "MaxPooling2D", "BatchNormalization", "Activation", "Conv2D", "BatchNormalization", "Activation"]
    assert kinds == ["InputLayer", "Rescaling", "Rescaling", "Conv2D", "Activation", *3 * block, "GlobalMaxPooling2D",
                     "Rescaling", "Dense"]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all((norm.scale, norm.momentum, norm.epsilon) == (False, 0.6, 1e-12) for norm in norms)
    whiten, *convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [64, 64, 256, 256, 256, 256]
    assert whiten.kernel.path in models.frozen_paths("airbench")
    x = np.random.default_rng(0).normal(size=(1, 7, 7, 64)).astype(np.float32)
    passed = keras.ops.conv(x, convolutions[2].kernel, padding="same")
    np.testing.assert_array_equal(passed[..., :64], x)
    random = np.abs(convolutions[2].kernel.numpy()[..., 64:])
    assert 0.99 < random.max() * (9 * 64) ** 0.5 <= 1
    assert [weight.name for weight in model.get_layer("logits").weights] == ["kernel"]


@pytest.fixture
def narrow(monkeypatch):
    """A network of 4, 16 and 16 filters."""
    monkeypatch.setattr(airbench, "WIDTH", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_first_weights_follow_from_the_data_on_any_number_of_replicas(trainable, small):
    expected = airbench.weights_of_data(small.train.images)["whiten/kernel"]
    for replicas in (1, 2):
        state = trainable(replicas, ema_decay=0.9, **SETTINGS)
        initialize_weights(state.job, state.state, print)
        for model in (state.state.model, state.state.averages.model):
            np.testing.assert_array_equal(model.get_layer("whiten").kernel, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("replicas, xla, kind", [(2, False, None), (2, True, gpu_like.KIND)])
def test_losses_are_those_of_one_replica(trainable, replicas, xla, kind):
    """With moments over all rows, and in few steps: a max pool chooses otherwise where sums are rounded otherwise."""
    def losses(replicas, **how):
        made = trainable(replicas, batch_size=8, sync_batch_norm=True, **how, **SETTINGS)
        initialize_weights(made.job, made.state, print)
        return made.train(3).loss

    with gpu_like.no_merge_call():
        np.testing.assert_allclose(losses(replicas, xla=xla, **({"kind": kind} if kind else {})), losses(1), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_run_goes_on_as_one_that_was_not_and_is_exported(tmp_path):
    whole, killed, more = (tmp_path / name for name in ("whole", "killed", "more"))
    for folder in (whole, killed, more):
        folder.mkdir()
    flags = (*FLAGS, "--max_steps=8", "--checkpoint_every_steps=2")
    runs.finish(runs.start(whole, *flags, "--export=h5,keras,saved_model"), 0)
    process = runs.start(killed, *flags, "--export=none")
    runs.wait_for_step(process, killed, 3)
    process.kill()
    process.communicate()
    runs.finish(runs.start(killed, *flags, "--export=none"), 0)
    runs.assert_equal_runs(whole, killed)
    _, state = runs.state(whole)
    for name in ("model.keras", "model.h5"):
        exported = keras.models.load_model(whole / "run/export" / name, compile=False)
        np.testing.assert_array_equal(exported.get_layer("whiten").kernel, state["model/0000/kernel"])
    out, _ = runs.finish(runs.start(more, *FLAGS, "--max_steps=1", "--export=none", f"--init_from={whole}/run"), 0)
    assert f"{len([key for key in state if key.startswith('model/')])} variables" in out
    np.testing.assert_array_equal(runs.state(more)[1]["model/0000/kernel"], state["model/0000/kernel"])
