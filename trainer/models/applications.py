"""The networks of keras.applications, untrained: `--model=keras:NAME`."""

import difflib
import sys

import keras
import numpy as np

from trainer.errors import UsageError


def build(name, classes, image_shape):
    """Builds one, with its family's preprocessing inside.

    Args:
        name: As in keras.applications, such as ResNet50.
        classes: How many logits it gives.
        image_shape: (height, width, channels).

    Returns:
        A functional `keras.Model`: float32 [n, height, width, channels] of 0 to 255 → float32 [n, classes].

    Raises:
        UsageError: if there is no such network, or it doesn't take images of that shape.
    """
    make = _constructor(name)
    try:
        network = make(include_top=True, weights=None, input_shape=image_shape, classes=classes,
                       classifier_activation=None)
    except ValueError as error:
        raise UsageError(f"--model=keras:{name} does not take images of {' × '.join(map(str, image_shape))}: "
                         f"{str(error).splitlines()[0]}", "choose another --image_size, or another --model") from None
    pixels = keras.Input(image_shape, dtype="float32", name="pixels")
    return keras.Model(pixels, _with_float32_logits(network)(_preprocessed(pixels, make)), name=name)


def _constructor(name):
    names = [known for known in dir(keras.applications) if known[0].isupper()]
    if name not in names:
        same = {known.lower(): known for known in names}
        near = [same[word] for word in difflib.get_close_matches(name.lower(), list(same), 3)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"keras.applications has no {name!r}{hint}", f"use one of {', '.join(names)}")
    return getattr(keras.applications, name)


def require_loadable(name, formats, model):
    """Makes sure that Keras alone can load a network from the formats that it is to be exported in.

    An .h5 file holds Keras's layers only. Some families have layers of their own, or operators between layers: Keras
    writes them, and then fails to load them.

    Args:
        name: As in `build`.
        formats: Members of `--export`.
        model: What `build` made.

    Raises:
        UsageError: if one can't hold it.
    """
    foreign = sorted({type(operation).__name__ for operation in _operations(model)
                      if not type(operation).__module__.startswith("keras.src.layers.")})
    if foreign and "h5" in formats:
        rest = ",".join(format for format in formats if format != "h5") or "keras"
        raise UsageError(f"--model=keras:{name} can't be exported as h5: Keras couldn't load its {', '.join(foreign)}",
                         f"add --export={rest}")


def _operations(model):
    for operation in model.operations:
        if hasattr(operation, "operations"):
            yield from _operations(operation)
        else:
            yield operation


def _preprocessed(pixels, make):
    """The pixels as the network's family takes them.

    What `preprocess_input` of the family does is found out from what it makes of three images. It is a channel order
    and a line for each channel, so layers that an .h5 file can hold do the same.
    """
    channels = pixels.shape[-1]
    preprocess = sys.modules[make.__module__].preprocess_input
    black, white = (preprocess(np.full((1, 1, 1, 3), value, np.float32)).reshape(3) for value in (0.0, 255.0))
    red = preprocess(np.float32([255, 0, 0]).reshape(1, 1, 1, 3)).reshape(3)
    scale, offset = (white - black) / 255, black
    if channels != 3:  # the families' means are those of colours
        scale, offset = scale.mean(keepdims=True), offset.mean(keepdims=True)
    elif not np.allclose(red[0], white[0]):
        pixels = _reversed_channels(pixels)
    if np.allclose(scale, 1) and np.allclose(offset, 0):
        return pixels  # the network scales by itself
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name="preprocess")(pixels)


def _reversed_channels(pixels):
    """RGB to BGR, exactly: a convolution of one pixel that doesn't train."""
    kernel = np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3).tolist()
    layer = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer=keras.initializers.Constant(kernel),
                                trainable=False, dtype="float32", name="bgr")
    return layer(pixels)


def _with_float32_logits(network):
    """The network with its last layer that has weights, and all behind it, in float32, whatever the others are in."""
    tail = set()
    for layer in reversed(network.layers):
        tail.add(layer.name)
        if layer.weights:
            break

    def copy(layer):
        config = layer.get_config()
        return type(layer).from_config({**config, "dtype": "float32"} if layer.name in tail else config)

    return keras.models.clone_model(network, clone_function=copy)
