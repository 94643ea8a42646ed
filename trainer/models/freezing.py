"""Layers that keep their weights while the others train: `--freeze`."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
    layers = [layer for layer in _layers(model) if layer.weights]
    matched = [layer for layer in layers[:-1] if re.fullmatch(pattern, layer.name)]
    if not matched:
        raise UsageError(f"--freeze={pattern} matches no layer but the last, which trains in any case; the model has "
                         f"{first_few([layer.name for layer in layers])}",
                         "a regular expression for whole names, such as 'conv.*', or .* for all but the last")
    for layer in matched:
        layer.trainable = False


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model and of the models inside it, in their order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer
