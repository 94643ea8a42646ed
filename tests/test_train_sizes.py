"""`--train_sizes`: smaller images inside the step, the same weights, and what can't take them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import models
from trainer.data import order
from trainer.data.augment.shrink import shrink
from trainer.errors import UsageError
from trainer.models.sizes import for_sizes


@pytest.mark.parametrize("height, width, side", [(32, 32, 24), (32, 32, 32), (33, 47, 20), (224, 160, 96), (9, 9, 1)])
def test_images_are_made_smaller_as_by_tensorflow(height, width, side):
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.float32)
    expected = tf.image.resize(images, (side, side), antialias=True)
    np.testing.assert_allclose(shrink(tf.constant(images), side), expected, atol=2e-3)
    compiled = tf.function(shrink, jit_compile=True)(tf.constant(images), side)
    np.testing.assert_allclose(compiled, expected, atol=2e-3)


@pytest.mark.parametrize("name, own, small", [("resnet20", 32, 24), ("keras:MobileNetV2", 64, 32)])
def test_a_model_for_another_size_has_the_same_weights(name, own, small):
    """Also where a model is inside the model, as keras.applications' are."""
    model = models.build(name, 10, (own, own, 3))
    (side, other), = for_sizes(model, [own, small, small]).items()
    assert side == small and other.input_shape == (None, small, small, 3)
    assert all(mine is theirs for mine, theirs in zip(model.variables, other.variables, strict=True))
    images = np.random.default_rng(0).integers(0, 256, (2, small, small, 3)).astype(np.float32)
    alone = models.build(name, 10, (small, small, 3))
    alone.set_weights(model.get_weights())
    np.testing.assert_allclose(other(images), alone(images), atol=1e-5)


def test_models_of_all_kinds_may_be_inside_a_model():
    pixels, inner = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    functional = keras.Model(inner, keras.layers.Conv2D(4, 3)(inner))
    sequential = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
    model = keras.Model(pixels, keras.layers.Dense(10)(sequential(functional(pixels))))
    (other,) = for_sizes(model, [16]).values()
    assert [id(one) for one in other.variables] == [id(one) for one in model.variables]
    assert other(np.zeros((2, 16, 16, 3), np.float32)).shape == (2, 10)


@pytest.mark.parametrize("name, shape, sides, says", [
    ("cnn3", (32, 32, 3), [24], "--train_sizes=24: the model, which is for images of 32 pixels, can't take them"),
    ("resnet20", (32, 32, 3), [40], "at most the images' own size of 32; received 40"),
    ("resnet20", (32, 40, 3), [24], "takes square images; this data has 32 × 40")])
def test_what_no_model_can_take_is_refused(name, shape, sides, says):
    with pytest.raises(UsageError, match=says) as refused:
        for_sizes(models.build(name, 10, shape), sides)
    assert refused.value.fix


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, True])
def test_a_step_on_smaller_images_is_that_of_plain_keras_on_them(trainable, small, xla):
    settings = {"model": "small_models:pooled", "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0}
    made = trainable(2, train_sizes=("16",), xla=xla, **settings)
    copy = keras.models.clone_model(made.state.model, input_tensors=keras.Input((16, 16, 3)))
    copy.set_weights(made.weights())
    ids = order.batches(order.Shuffle(0, 240), 24, 1, 0, 0, 1)[0][0]
    images = tf.image.resize(small.train.images[ids].astype(np.float32), (16, 16), antialias=True)
    copy.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = copy.train_on_batch(images, small.train.labels[ids])
    assert made.train(1).loss[0] == pytest.approx(float(loss), rel=1e-5)
    for ours, theirs in zip(made.weights(), copy.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
