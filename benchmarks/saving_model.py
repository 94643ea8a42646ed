"""A model whose state is large for its arithmetic: 25 million parameters, 300 MB with Adam's two moments."""

import keras
from keras import layers


def wide(classes, image_shape):
    """Three dense layers."""
    pixels = keras.Input(image_shape)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(pixels))
    for units in (4096, 3024):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(x))
