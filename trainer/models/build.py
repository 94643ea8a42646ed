"""Builds a model by its name."""

import keras

from trainer.models import reference, resnet

_BODIES = {"cnn2": reference.cnn2, "cnn3": reference.cnn3, "resnet20": resnet.resnet20}
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build(name, classes, image_shape, precision="float32"):
    """Builds a model with fresh weights.

    The same name, classes and shape give the same variables in the same order at every precision, so
    weights can be carried from one to another.

    Args:
        name: As in `--model`.
        classes: How many logits it gives.
        image_shape: (height, width, channels).
        precision: What layers compute in: float32, bfloat16 or float16. Variables and logits are float32.

    Returns:
        A functional `keras.Model`: float32 [n, height, width, channels] of 0 to 255 → float32 [n, classes].
    """
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        pixels = keras.Input(image_shape, dtype="float32", name="pixels")
        features = _BODIES[name](keras.layers.Rescaling(1 / 255, name="scale")(pixels))
        logits = keras.layers.Dense(classes, dtype="float32", name="logits")(features)
        return keras.Model(pixels, logits, name=name)
    finally:
        keras.config.set_dtype_policy(outer)
