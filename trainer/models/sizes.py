"""A model that takes images of other sizes, with the same layers and weights."""

from __future__ import annotations

from collections.abc import Collection

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
            found[side] = keras.models.clone_model(model, input_tensors=keras.Input((side, side, channels)),
                                                   clone_function=_itself)
        except ValueError as error:
            raise UsageError(f"--train_sizes={side}: the model takes images of {height} pixels only "
                             f"({str(error).splitlines()[0]})",
                             "a larger size, or a model that pools over all of an image before its last layer: "
                             "resnet18, resnet20, resnet50, keras:NAME") from error
    return found


def _itself(layer: keras.Layer) -> keras.Layer:
    return layer
