"""A model that takes images of other sizes, with the same layers and weights."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import keras

from trainer.errors import UsageError


def for_sizes(model: keras.Model, sides: Collection[int]) -> dict[int, keras.Model]:
    """The model for square images of other sizes.

    Args:
        model: A functional model from images of one size to logits.
        sides: Heights and widths in pixels.

    Returns:
        A dict of side to a functional model with the layers of `model`, and so its weights; without the model's own
        size.

    Raises:
        UsageError: if the model's images aren't square or are smaller, or a layer takes no such images.
    """
    _, height, width, channels = model.input_shape
    if sides and height != width:
        raise UsageError(f"--train_sizes takes square images; this data has {height} × {width}",
                         "leave --train_sizes out, or give --image_size where the data set takes it")
    found = {}
    for side in sorted({*sides} - {height}):
        if side > height:
            raise UsageError(f"--train_sizes must be at most the images' own size of {height}; received {side}",
                             f"--train_sizes of up to {height}, or a larger --image_size")
        try:
            found[side] = _view(model, (side, side, channels))
        except Exception as error:  # of whatever layer: a model of one's own may have any
            raise UsageError(f"--train_sizes={side}: the model, which is for images of {height} pixels, can't take "
                             f"them ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})",
                             "a larger size, or a model that pools over all of an image before its last layer: "
                             "resnet18, resnet20, resnet50, keras:NAME") from error
    return found


def _view(model: keras.Model, shape: tuple[int | None, ...]) -> keras.Model:
    """A functional model of the same layers, for images of another shape."""
    return keras.models.clone_model(model, input_tensors=keras.Input(shape), clone_function=_itself,
                                    call_function=_called)


def _itself(layer: keras.Layer) -> keras.Layer:
    return layer


def _called(layer: keras.Layer, *arguments: Any, **named: Any) -> Any:
    """What a layer makes of its inputs. A model inside the model, which insists on its own shape, becomes a view."""
    if isinstance(layer, keras.Sequential):
        return functools.reduce(lambda x, inner: _called(inner, x), layer.layers, arguments[0])
    if isinstance(layer, keras.Model) and hasattr(layer, "operations"):
        layer = _view(layer, arguments[0].shape[1:])
    return layer(*arguments, **named)
