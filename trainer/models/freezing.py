"""Layers that keep their weights while the others train: `--freeze`."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Sequence

import keras

from trainer.errors import UsageError, first_few


def freeze(model: keras.Model, pattern: str) -> None:
    """Makes layers untrainable: their weights get no gradients, and their batch norm uses its averages.

    Args:
        model: A functional model.
        pattern: A regular expression for the whole name of a layer; "" for none. The last layer with weights trains in
            any case.

    Raises:
        UsageError: if it matches no layer with weights.
    """
    if not pattern:
        return
    layers = [layer for layer in layers_of(model) if layer.weights]
    names = _names(layers)
    matched = [layer for layer, name in zip(layers[:-1], names, strict=False) if re.fullmatch(pattern, name)]
    if not matched:
        raise UsageError(f"--freeze={pattern} matches no layer but the last, which trains in any case; the model has "
                         f"{first_few(names)}",
                         "a regular expression for whole names, such as 'conv.*', or .* for all but the last")
    for layer in matched:
        layer.trainable = False


def freeze_own(model: keras.Model, paths: Sequence[str]) -> None:
    """Makes single variables untrainable, in the model that trains alone: an .h5 file orders weights by that.

    Args:
        model: A functional model.
        paths: The variables' paths.
    """
    for variable in model.variables:
        if variable.path in paths:
            variable.trainable = False


def _names(layers: Sequence[keras.Layer]) -> list[str]:
    """The layers' names; those that Keras made up are counted within the model: conv2d, conv2d_1, …

    Keras counts them within the process, so the same model has other names where another was built before it.

    Args:
        layers: The layers with weights, in their order.
    """
    counts: collections.Counter[str] = collections.Counter()
    names = []
    for layer in layers:
        kind = _snake_case(type(layer).__name__)
        if re.fullmatch(rf"{kind}(_\d+)?", layer.name):
            names.append(f"{kind}_{counts[kind]}" if counts[kind] else kind)
            counts[kind] += 1
        else:
            names.append(layer.name)
    return names


def _snake_case(name: str) -> str:
    """A class's name as Keras makes a layer's name of it: Conv2D to conv2d."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)).lower()


def layers_of(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model and of the models inside it, in their order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer
