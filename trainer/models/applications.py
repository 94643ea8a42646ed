"""The networks of keras.applications, untrained: `--model=keras:NAME`."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras
import numpy as np

from trainer.errors import UsageError


def build(name: str, classes: int, image_shape: tuple[int, int, int]) -> keras.Model:
    """Builds a network, with its family's preprocessing inside.

    Args:
        name: Its name in keras.applications, such as ResNet50.
        classes: Number of logits.
        image_shape: (height, width, channels).

    Returns:
        A functional `keras.Model`: float32 [n, height, width, channels] of 0 to 255 → float32 [n, classes].

    Raises:
        UsageError: if there is no such network, or the network doesn't take images of that shape.
    """
    make = _constructor(name)
    try:
        network = make(include_top=True, weights=None, input_shape=image_shape, classes=classes,
                       classifier_activation=None)
    except ValueError as error:
        raise UsageError(f"--model=keras:{name} does not take images of {' × '.join(map(str, image_shape))}: "
                         f"{str(error).splitlines()[0]}", "choose another --model, or with --dataset=folder, "
                         "csv, records or tfds:NAME another --image_size") from None
    pixels: Any = keras.Input(image_shape, dtype="float32", name="pixels")
    return keras.Model(pixels, _with_float32_logits(network)(_preprocessed(pixels, make)), name=name)


def _constructor(name: str) -> Callable[..., keras.Model]:
    """The function of keras.applications that builds a network."""
    names = [known for known in dir(keras.applications) if known[0].isupper()]
    if name not in names:
        by_lower_case = {known.lower(): known for known in names}
        near = [by_lower_case[match] for match in difflib.get_close_matches(name.lower(), list(by_lower_case), 3)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"keras.applications has no {name!r}{hint}", f"use one of {', '.join(names)}")
    return getattr(keras.applications, name)


def require_loadable(name: str, formats: Collection[str], model: keras.Model) -> None:
    """Makes sure that Keras alone can load a network from the formats in which it is to be exported.

    An .h5 file holds Keras's layers only. Some families have layers of their own, or operators between layers: Keras
    writes them, and then fails to load them.

    Args:
        name: As in `build`.
        formats: Members of `--export`.
        model: The network that `build` returned.

    Raises:
        UsageError: if Keras couldn't load the network from one of the formats.
    """
    unknown = sorted({type(operation).__name__ for operation in _operations(model)
                      if not type(operation).__module__.startswith("keras.src.layers.")})
    if unknown and "h5" in formats:
        rest = ",".join(format for format in formats if format != "h5") or "keras"
        raise UsageError(f"--model=keras:{name} can't be exported as h5: Keras couldn't load its {', '.join(unknown)}",
                         f"add --export={rest}")


def _operations(model: keras.Model) -> Iterator[keras.Operation]:
    """The layers and operators of a model and of the models inside it."""
    for operation in model.operations:
        if hasattr(operation, "operations"):
            yield from _operations(operation)
        else:
            yield operation


def _preprocessed(pixels: keras.KerasTensor, make: Callable[..., keras.Model]) -> keras.KerasTensor:
    """The pixels as the network's family takes them.

    What `preprocess_input` of the family does follows from its results for three images: it reorders the channels, and
    scales and shifts each of them, so layers that an .h5 file can hold do the same.
    """
    channels = pixels.shape[-1]
    preprocess = sys.modules[make.__module__].preprocess_input
    black, white = (preprocess(np.full((1, 1, 1, 3), value, np.float32)).reshape(3) for value in (0.0, 255.0))
    red = preprocess(np.array([255, 0, 0], np.float32).reshape(1, 1, 1, 3)).reshape(3)
    scale, offset = (white - black) / 255, black
    if channels != 3:  # the families' means are for three colours
        scale, offset = scale.mean(keepdims=True), offset.mean(keepdims=True)
    elif not np.allclose(red[0], white[0]):
        pixels = _reversed_channels(pixels)
    if np.allclose(scale, 1) and np.allclose(offset, 0):
        return pixels  # the network scales by itself
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name="preprocess")(pixels)


def _reversed_channels(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """RGB to BGR, exactly: by a convolution of one pixel that doesn't train."""
    kernel = np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3).tolist()
    constant: Any = keras.initializers.Constant(kernel)
    layer = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer=constant, trainable=False, dtype="float32",
                                name="bgr")
    return layer(pixels)


def _with_float32_logits(network: keras.Model) -> keras.Model:
    """The network with its last layer with weights, and all layers after it, in float32; the others are unchanged."""
    tail = set()
    for layer in reversed(network.layers):
        tail.add(layer.name)
        if layer.weights:
            break

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        return type(layer).from_config({**config, "dtype": "float32"} if layer.name in tail else config)

    return keras.models.clone_model(network, clone_function=copy)
