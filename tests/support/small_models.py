"""Models that compile in a moment, for tests of something other than models."""

import json
import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def smooth(classes, image_shape):
    """A model without corners: no ReLU, no max pool.

    Rounding that differs between replica counts can change a max pool's choice between two nearly equal pixels, and
    training then differs a little. This model has no such choice, so losses must agree.
    """
    pixels = keras.Input(image_shape)
    x = layers.Rescaling(1 / 127.5, -1)(pixels)
    for filters in (8, 16):
        x = layers.AveragePooling2D(2)(layers.Conv2D(filters, 3, activation="tanh")(x))
    x = layers.Dense(32, activation="tanh")(layers.Flatten()(x))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


def normalized(classes, image_shape):
    """Batch norm after every convolution."""
    pixels = keras.Input(image_shape)
    x = layers.Rescaling(1 / 255)(pixels)
    for filters in (8, 16, 16):
        x = layers.Conv2D(filters, 3, strides=2, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(layers.Flatten()(x)))


def dropped(classes, image_shape):
    """Dropout between the input and the last layer."""
    pixels = keras.Input(image_shape)
    x = layers.Dropout(0.5)(layers.Flatten()(layers.Rescaling(1 / 255)(layers.AveragePooling2D(4)(pixels))))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


def constrained(classes, image_shape):
    """A kernel whose columns have a norm of at most a half."""
    pixels = keras.Input(image_shape)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(layers.AveragePooling2D(4)(pixels)))
    kernel = keras.constraints.MaxNorm(0.5, axis=0)
    return keras.Model(pixels, layers.Dense(classes, kernel_constraint=kernel, dtype="float32")(x))


def no_model(classes, image_shape):
    return "not a model"


def _dawdle(phase):
    """Takes very long in the phase that SLOW_PHASE names; a file tells the test that the process is in that phase."""
    if os.environ.get("SLOW_PHASE") == phase:
        Path("slow").touch()
        time.sleep(100)


class Slow(layers.Layer):
    """Returns its input; takes very long to be compiled or evaluated where SLOW_PHASE says so."""

    def call(self, inputs, training=None):
        if training is not None:
            _dawdle("compiling" if training else "evaluating")
        return inputs


_BUILT = []


def slow(classes, image_shape):
    """A model that can take very long to compile, or to be built again for the exports."""
    if _BUILT:
        _dawdle("exporting")
    _BUILT.append(True)
    pixels = keras.Input(image_shape)
    x = Slow()(layers.Flatten()(layers.Rescaling(1 / 255)(layers.AveragePooling2D(4)(pixels))))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(layers.Dense(8)(x)))


def hungry(classes, image_shape):
    """A model that needs a TiB of memory."""
    pixels = keras.Input(image_shape)
    x = layers.Dense(classes, dtype="float32")(layers.Flatten()(layers.Rescaling(1 / 255)(pixels)))
    return keras.Model(pixels, layers.Lambda(_add_a_large_sum)(x))


def _add_a_large_sum(y):
    return y + keras.ops.sum(keras.ops.sqrt(keras.ops.broadcast_to(keras.ops.mean(y), (2**38,))))


def operators(classes, image_shape):
    """A model with operators between its layers, which Keras writes into an .h5 file and can't load from it."""
    print("a model of the user's own may say something")
    pixels = keras.Input(image_shape)
    x = layers.Flatten()(layers.AveragePooling2D(4)(pixels / 127.5 - 1.0))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


def _halt(_):
    """The first caller that finds a file named "hang" removes the file, and never returns."""
    try:
        Path("hang").unlink()
    except FileNotFoundError:
        return np.float32(0)
    time.sleep(1000)


def _lag(_):
    """Worker 1 is slow."""
    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
        time.sleep(0.05)
    return np.float32(0)


class Python(layers.Layer):
    """Calls a Python function in every step of training."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs, training=None):
        if not training:
            return inputs
        zero = tf.numpy_function(self.function, [inputs[0, 0]], tf.float32)
        return inputs + tf.ensure_shape(zero, [])


def _with_python(function):
    def build(classes, image_shape):
        pixels = keras.Input(image_shape)
        x = layers.Flatten()(layers.Rescaling(1 / 255)(layers.AveragePooling2D(4)(pixels)))
        return keras.Model(pixels, layers.Dense(classes, dtype="float32")(Python(function)(x)))

    return build


halting, lagging = _with_python(_halt), _with_python(_lag)


def regularized(classes, image_shape):
    """Batch norm and dropout. tests/fixtures/e1360bb holds a run of this model: don't change it."""
    pixels = keras.Input(image_shape)
    x = layers.Rescaling(1 / 255)(pixels)
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, strides=2, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(0.3)(layers.Dense(16, activation="relu")(layers.Dropout(0.2)(layers.Flatten()(x))))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


def frozen(classes, image_shape):
    """A backbone whose weights don't train, behind a normalization with given moments; a head that trains."""
    pixels = keras.Input(image_shape)
    x = layers.Normalization(mean=[100.0, 110.0, 120.0], variance=[60.0, 60.0, 60.0])(pixels)
    backbone = keras.Sequential([layers.Conv2D(8, 3, strides=2), layers.BatchNormalization(), layers.Conv2D(8, 3)])
    backbone.trainable = False
    x = layers.BatchNormalization(momentum=0.9)(backbone(x))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(layers.Flatten()(x)))


class Counting(layers.Layer):
    """Keeps a running mean of its input in float16, in a variable of its own."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(), dtype="float16", trainable=False, initializer="zeros")

    def call(self, inputs, training=None):
        if training:
            self.mean.assign(0.9 * tf.cast(self.mean, "float16") + 0.1 * tf.cast(tf.reduce_mean(inputs), "float16"))
        return inputs


def penalized(classes, image_shape):
    """Regularizers of every kind, and a statistic in float16."""
    pixels = keras.Input(image_shape)
    x = Counting()(layers.Flatten()(layers.Rescaling(1 / 255)(layers.AveragePooling2D(4)(pixels))))
    x = layers.Dense(16, activation="tanh", activity_regularizer="l2", kernel_regularizer="l2",
                     bias_regularizer="l1")(x)
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


def compact(classes, image_shape):
    """Batch norm between two small dense layers, without corners: the quickest to compile of those with statistics."""
    pixels = keras.Input(image_shape)
    x = layers.Dense(8)(layers.Flatten()(layers.Rescaling(1 / 127.5, -1)(layers.AveragePooling2D(8)(pixels))))
    x = layers.Activation("tanh")(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


class Jittered(layers.Layer):
    """A layer of a user's: adds numbers that it draws by keras.random, one for each example."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, inputs, training=None):
        if not training:
            return inputs
        return inputs + keras.random.uniform((keras.ops.shape(inputs)[0], 1), -0.3, 0.3, seed=self.seed_generator)


def random(classes, image_shape):
    """Random layers of every kind; one is called twice."""
    pixels = keras.Input(image_shape)
    x = layers.RandomFlip("horizontal")(layers.Rescaling(1 / 127.5, -1)(layers.AveragePooling2D(8)(pixels)))
    x = layers.Flatten()(layers.GaussianNoise(0.1)(layers.SpatialDropout2D(0.2)(x)))
    x = layers.AlphaDropout(0.1)(layers.GaussianDropout(0.1)(layers.Dense(8, activation="tanh")(x)))
    dropout = layers.Dropout(0.3)
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(Jittered()(dropout(dropout(x)))))


def drawn(classes, image_shape):
    """Two dense layers, penalized, with dropout between them: the quickest to compile of those that draw."""
    pixels = keras.Input(image_shape)
    x = layers.Flatten()(layers.Rescaling(1 / 127.5, -1)(layers.AveragePooling2D(8)(pixels)))
    x = layers.Dense(8, activation="tanh", activity_regularizer="l2", kernel_regularizer="l2")(x)
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(layers.Dropout(0.3)(x)))


class Greedy(layers.Layer):
    """Takes a TiB of memory for more than two rows."""

    def call(self, inputs, training=None):
        rows = inputs.shape[0]
        return _add_a_large_sum(inputs) if training and rows and rows > 2 else inputs


def greedy(classes, image_shape):
    """A model that takes two rows of a replica, and no more."""
    pixels = keras.Input(image_shape)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(layers.AveragePooling2D(8)(pixels)))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(Greedy()(x)))


def options(classes, image_shape):
    """Batch norm, dropout, and a residual path that is dropped."""
    pixels = keras.Input(image_shape)
    x = layers.Conv2D(4, 1)(layers.Rescaling(1 / 127.5, -1)(layers.AveragePooling2D(8)(pixels)))
    residual = layers.Dropout(0.3, noise_shape=(None, 1, 1, 1))(layers.BatchNormalization()(layers.Conv2D(4, 1)(x)))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(layers.Add()([x, residual])))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


def pooled(classes, image_shape):
    """A smooth model that takes images of any size."""
    pixels = keras.Input(image_shape)
    x = layers.Conv2D(8, 3, activation="tanh")(layers.Rescaling(1 / 127.5, -1)(pixels))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(layers.GlobalAveragePooling2D()(x)))
