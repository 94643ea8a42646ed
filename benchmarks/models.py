"""Models that the benchmarks train: `tiny` in speed.py; `resnet50` and `wide`, of 25 million parameters, in saving.py.

This module measures nothing. The trainer finds a model by --model=benchmarks.models:NAME.
"""

import keras
from keras import layers


def tiny(classes, image_shape):
    """An 8×8 average pool and a dense layer: its time per step is what the program around it costs.

    Args:
        classes: Number of logits.
        image_shape: (height, width, channels).

    Returns:
        A `keras.Model` from pixels of 0 to 255 to logits.
    """
    pixels = keras.Input(image_shape)
    x = layers.AveragePooling2D(8)(layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(layers.Flatten()(x)))


def resnet50(classes, image_shape):
    """ResNet-50 with its dense layer of 1,000 (He et al. 2015): 300 MB of state with Adam's two moments.

    Args:
        classes: Number of logits.
        image_shape: (height, width, channels).

    Returns:
        A `keras.Model` from pixels of 0 to 255 to logits.
    """
    pixels = keras.Input(image_shape)
    trunk = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=image_shape)
    x = layers.Dense(1000, activation="relu")(trunk(layers.Rescaling(1 / 127.5, -1)(pixels)))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


def wide(classes, image_shape):
    """Three dense layers with as much state as `resnet50`: the hardest case for saving, with hardly any arithmetic.

    Args:
        classes: Number of logits.
        image_shape: (height, width, channels).

    Returns:
        A `keras.Model` from pixels of 0 to 255 to logits.
    """
    pixels = keras.Input(image_shape)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(pixels))
    for units in (4096, 3024):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))
