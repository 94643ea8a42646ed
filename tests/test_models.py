"""The built-in models: parameters, shapes, precisions, preprocessing, pools without a scatter."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import long

from trainer import models
from trainer.config import MODELS
from trainer.errors import UsageError
from trainer.models import applications
from trainer.models.normalization import moments, normalize_in_one_pass
from trainer.models.pooling import max_pool, pool_by_comparison


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize("name, parameters", [("cnn3", 122_570), ("cnn2", 167_562), ("resnet20", 269_722)])
def test_parameters(name, parameters):
    # Of the papers and the reference; the ResNet's 0.27 M hold for shortcuts without parameters.
    assert trainable(models.build(name, 10, (32, 32, 3))) == parameters


def test_cnn3_is_the_reference():
    kinds = [type(layer).__name__ for layer in models.build("cnn3", 10, (32, 32, 3)).layers]
    assert kinds == ["InputLayer", "Rescaling", "Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Conv2D", "Flatten",
                     "Dense", "Dense"]
    convolutions = [layer for layer in models.build("cnn3", 10, (32, 32, 3)).layers if "conv" in layer.name]
    assert [layer.filters for layer in convolutions] == [32, 64, 64]
    assert all(layer.padding == "valid" and layer.kernel_size == (3, 3) for layer in convolutions)


def test_resnet20_shortcuts_take_every_other_pixel_and_pad_channels():
    model = models.build("resnet20", 10, (32, 32, 3))
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)

    def first(kind):
        return next(layer for layer in model.layers if isinstance(layer, kind))

    ends = [first(keras.layers.AveragePooling2D).input, first(keras.layers.ZeroPadding2D).output]
    before, padded = keras.Model(model.input, ends)(x)
    np.testing.assert_array_equal(padded[..., 8:24], before[:, ::2, ::2])
    assert not np.any(padded[..., :8]) and not np.any(padded[..., 24:])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_carry_over_between_precisions(name, precision):
    full, half = models.build(name, 7, (24, 28, 3)), models.build(name, 7, (24, 28, 3), precision)
    assert [v.shape for v in full.variables] == [v.shape for v in half.variables]
    assert {v.dtype for v in half.variables} == {"float32"} and half.outputs[0].dtype == "float32"
    assert half.layers[4].compute_dtype == precision
    assert keras.config.dtype_policy().name == "float32"


def test_a_users_model():
    assert models.build("small_models:smooth", 4, (16, 16, 3)).output_shape == (None, 4)
    for name in ("small_models:nothing", "no_such_module:build"):
        with pytest.raises(UsageError, match="can't be imported"):
            models.build(name, 4, (16, 16, 3))
    with pytest.raises(UsageError, match="must return a functional"):
        models.build("small_models:no_model", 4, (16, 16, 3))


@pytest.mark.parametrize("name, parameters", [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_parameters_of_the_networks_for_photographs(name, parameters):
    # As torchvision counts them, whose bottlenecks are v1.5's.
    assert trainable(models.build(name, 1000, (224, 224, 3))) == parameters


def test_resnet50_halves_in_its_3x3_convolutions():
    strided = [layer for layer in models.build("resnet50", 10, (224, 224, 3)).layers
               if isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2)]
    assert sorted(layer.kernel_size for layer in strided) == [(1, 1)] * 3 + [(3, 3)] * 3 + [(7, 7)]  # 1×1: shortcuts


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_small_images_keep_their_pixels_in_the_stem(name):
    kinds = [type(layer).__name__ for layer in models.build(name, 10, (32, 32, 3)).layers]
    assert "MaxPooling2D" not in kinds
    assert "MaxPooling2D" in [type(layer).__name__ for layer in models.build(name, 10, (96, 96, 3)).layers]


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "MobileNetV2", "EfficientNetB0",
    *(long(name) for name in ("ResNet50", "DenseNet121"))])
def test_a_network_of_keras_has_its_familys_preprocessing_inside(name):
    """Against the family's own function, in front of the same weights."""
    model = models.build(f"keras:{name}", 7, (64, 64, 3))
    network = model.layers[-1]
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    family = sys.modules[getattr(keras.applications, name).__module__]
    np.testing.assert_allclose(model(images), network(family.preprocess_input(images.copy())), rtol=1e-4, atol=1e-5)
    assert not any(variable.path.startswith("bgr") for variable in model.trainable_variables)
    half = models.build(f"keras:{name}", 7, (64, 64, 3), "bfloat16")
    assert half.outputs[0].dtype == "float32"
    assert [variable.shape for variable in half.variables] == [variable.shape for variable in model.variables]


def test_a_network_of_keras_that_is_not_there_or_does_not_fit():
    with pytest.raises(UsageError, match="has no 'resnet50'; did you mean ResNet50"):
        models.build("keras:resnet50", 7, (64, 64, 3))
    with pytest.raises(UsageError, match="does not take images of 32 × 32 × 3"):
        models.build("keras:Xception", 7, (32, 32, 3))


@pytest.mark.parametrize("name", ["MobileNetV3Small", "ConvNeXtTiny"])
def test_what_keras_alone_could_not_load_is_refused(name, tmp_path):
    model = models.build(f"keras:{name}", 7, (64, 64, 3))
    with pytest.raises(UsageError, match="can't be exported as h5"):
        applications.require_loadable(name, ("h5", "keras"), model)
    applications.require_loadable(name, ("keras", "saved_model"), model)
    model.save(tmp_path / "model.h5")  # it really can't
    with pytest.raises((ValueError, TypeError)):
        keras.models.load_model(tmp_path / "model.h5", compile=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size, strides, padding, shape", [
    ((2, 2), (2, 2), "valid", (8, 8)), ((2, 2), (2, 2), "valid", (9, 7)), ((1, 1), (2, 2), "valid", (8, 7)),
    ((2, 3), (3, 2), "valid", (10, 11)), ((3, 3), (2, 2), "valid", (11, 9)), ((3, 3), (2, 2), "same", (10, 9)),
    ((3, 3), (1, 1), "same", (6, 6))])
def test_pooling_by_comparison_has_tensorflows_gradient(dtype, size, strides, padding, shape):
    rng = np.random.default_rng(0)
    # After a ReLU most maxima are shared: the first one gets the gradient.
    images = tf.cast(np.maximum(rng.integers(-3, 4, (4, *shape, 5)), 0), dtype)
    mine, theirs = (lambda x: max_pool(x, size, strides, padding),
                    lambda x: tf.nn.max_pool2d(x, size, strides, padding.upper()))
    np.testing.assert_array_equal(mine(images), theirs(images))
    incoming = tf.cast(rng.normal(size=mine(images).shape), dtype)

    def gradient_of(pool):
        with tf.GradientTape() as tape:
            tape.watch(images)
            pooled = pool(images)
        return tf.cast(tape.gradient(pooled, images, incoming), tf.float32).numpy()

    overlaps = size[0] > strides[0]  # then a gradient is a sum, in one order or another
    np.testing.assert_allclose(gradient_of(mine), gradient_of(theirs),
                               atol=0 if not overlaps else 1e-6 if dtype == "float32" else 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    *(name for name in MODELS if name != "resnet50"),
    *(long(name) for name in ("resnet50", "keras:ResNet50"))])
def test_pools_by_comparison_leave_no_max_pool_gradient_and_the_same_values(name):
    shape = (64, 64, 3) if ":" in name else (32, 32, 3)
    model, changed = (models.build(name, 5, shape) for _ in range(2))
    changed.set_weights(model.get_weights())
    pool_by_comparison(changed)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (2, *shape)), tf.float32)
    np.testing.assert_array_equal(model(images), changed(images))

    @tf.function
    def gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(changed(images))
        return tape.gradient(loss, changed.trainable_variables)

    graph = gradients.get_concrete_function(images).graph.as_graph_def()
    assert not any("MaxPoolGrad" in node.op for node in graph.node)


@pytest.mark.parametrize("mean, deviation", [(0, 1), (1000, 1), (-3, 1e-3), (7, 0)])
@pytest.mark.parametrize("shape, axes", [((16, 8, 8, 3), [0, 1, 2]), ((64, 5), [0])])
def test_moments_in_one_pass_are_as_exact_as_in_two(mean, deviation, shape, axes):
    x = np.random.default_rng(0).normal(mean, deviation, shape).astype(np.float32)
    exact = x.astype(np.float64).mean(tuple(axes)), x.astype(np.float64).var(tuple(axes))
    for found, wanted in zip(moments(tf.constant(x), axes), exact, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_that_normalizes_in_one_pass_is_the_same_model(precision):
    """Values, gradients and moving averages of two layers; and their sums of squares wait for no mean."""
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]

    def build():
        images = keras.Input((8, 8, 3))
        inner = keras.Sequential([keras.layers.Conv2D(6, 3, activation="relu"),
                                  keras.layers.BatchNormalization(dtype=policy), keras.layers.Dense(2, "sigmoid")])
        return keras.Model(images, inner(keras.layers.BatchNormalization(dtype=policy)(images)))

    keras.utils.set_random_seed(0)
    model, changed = build(), build()
    changed.set_weights(model.get_weights())
    normalize_in_one_pass(changed)
    images = tf.constant(np.random.default_rng(0).normal(5, 2, (16, 8, 8, 3)), tf.float32)
    found = []
    for each in (model, changed):
        with tf.GradientTape() as tape:
            values = each(images, training=True)
            loss = tf.reduce_sum(tf.square(values)[:, 0])
        found.append([values, *tape.gradient(loss, each.trainable_variables), *each.non_trainable_variables])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=(3e-4 if precision == "float32" else 2e-2) * np.abs(theirs).max())

    graph = tf.function(lambda: changed(images, training=True)).get_concrete_function().graph.as_graph_def()
    assert not any(node.op == "SquaredDifference" for node in graph.node)


FIRST_WEIGHTS = {  # the sum of absolute values, each variable's times its place, for 10 classes of 32-pixel images
    "airbench": 65816.7303, "cnn2": 21544.9954, "cnn3": 26979.8116, "resnet18": 18671244.3925, "resnet20": 1102341.8191,
    "resnet50": 163007965.3715}


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_gives_the_weights_that_it_always_gave(name):
    """They follow from the order in which layers are made, too: a change of it changes every run's bits."""
    keras.utils.set_random_seed(0)
    weights = models.build(name, 10, (32, 32, 3)).get_weights()
    found = sum(place * float(np.abs(value).astype(np.float64).sum()) for place, value in enumerate(weights, 1))
    assert found == pytest.approx(FIRST_WEIGHTS[name], rel=1e-6)


@pytest.mark.parametrize("name, blocks", [("resnet20", 9), ("resnet18", 8)])
def test_paths_are_dropped_linearly_over_depth(name, blocks):
    """1 − p of block l of L is l / L of the last one's (Huang et al. 2016, equation 4), in layers that an .h5 holds."""
    model = models.build(name, 10, (32, 32, 3), drop_path=0.4)
    dropouts = [layer for layer in model.layers if type(layer) is keras.layers.Dropout]
    found = sorted(layer.rate for layer in dropouts)
    np.testing.assert_allclose(found, [0.4 * number / blocks for number in range(1, blocks + 1)])
    assert all(layer.noise_shape == (None, 1, 1, 1) for layer in dropouts)


@pytest.mark.parametrize("name", ["cnn3", "keras:ResNet50", "small_models:smooth"])
def test_a_model_without_residual_blocks_has_no_path_to_drop(name):
    with pytest.raises(UsageError, match=f"resnet18, resnet20, resnet50; received --model={name}"):
        models.build(name, 10, (64, 64, 3), drop_path=0.1)
