"""Models of 25 million parameters, whose checkpoints have 300 MB with Adam's two moments."""

import keras
from keras import layers


def resnet50(classes, image_shape):
    """ResNet-50 with its dense layer of 1,000 (He et al. 2015): the usual model of this size."""
    pixels = keras.Input(image_shape)
    trunk = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=image_shape)
    x = layers.Dense(1000, activation="relu")(trunk(layers.Rescaling(1 / 127.5, -1)(pixels)))
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))


def wide(classes, image_shape):
    """Three dense layers: the hardest case, hardly any arithmetic for so much state."""
    pixels = keras.Input(image_shape)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(pixels))
    for units in (4096, 3024):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))
