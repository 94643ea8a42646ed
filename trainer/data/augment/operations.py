"""Changes of an image that RandAugment, TrivialAugment and the like choose among, each with a strength.

Each example has a change of its own. So that a whole batch can do different ones at once, on the device and under
XLA, every change is one of three kinds, and each kind is applied to all images with parameters that leave
those alone that have another kind:

    geometry   where each pixel comes from    shear, translate, rotate: around the middle
    levels     a table of 256 new values      brightness, contrast, posterize, solarize, autocontrast, equalize
    blend      with another image             colour (with a grey one), sharpness (with a blurred one)

Pixels from outside the image are grey. Levels and blends are Pillow's, to the last bit or nearly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from trainer.data.augment.image_size import image_size
from trainer.errors import UsageError
from trainer.process.tf_import import tf

OPERATIONS = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "contrast",
              "posterize", "solarize", "autocontrast", "equalize", "color", "sharpness")
_GREY = 128


class Strengths(NamedTuple):
    """How strong each change is, for every example: float32 [n] each.

    Args:
        shear: How far a pixel is moved along one side, for each pixel along the other; with a sign.
        across, down: Whole pixels that an image is moved by; with a sign.
        cosine, sine: Of the rotation's angle.
        factor: Of brightness, contrast, colour and sharpness; 1 changes nothing.
        step: From one level that posterize keeps to the next, a power of 2.
        threshold: The level from which on solarize inverts.
    """

    shear: tf.Tensor
    across: tf.Tensor
    down: tf.Tensor
    cosine: tf.Tensor
    sine: tf.Tensor
    factor: tf.Tensor
    step: tf.Tensor
    threshold: tf.Tensor


def in_colour(name: str, images: tf.Tensor, change_colours: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Applies a change of colour images to images of one channel as well, as if they had three equal ones.

    Args:
        name: The member of `--augment`.
        images: uint8 [n, height, width, 1 or 3].
        change_colours: uint8 [n, height, width, 3] to the same shape.

    Returns:
        uint8 of the images' shape.

    Raises:
        UsageError: if the images have another number of channels.
    """
    channels = images.shape[-1]
    if channels == 1:
        return tf.slice(change_colours(tf.repeat(images, 3, -1)), [0, 0, 0, 0], [-1, -1, -1, 1])
    if channels != 3:
        raise UsageError(f"--augment={name} changes images of 1 or 3 channels; received {channels}",
                         f"leave {name} out of --augment")
    return change_colours(images)


def change(images: tf.Tensor, operations: tf.Tensor, strengths: Strengths, by_comparison: bool = False) -> tf.Tensor:
    """Applies one change to each image.

    Args:
        images: uint8 [n, height, width, 3].
        operations: int32 [n], indices into `OPERATIONS`.
        strengths: How strong the changes are.
        by_comparison: As in `histograms`.

    Returns:
        uint8 of the same shape.
    """
    chosen = {name: tf.equal(operations, index) for index, name in enumerate(OPERATIONS)}
    images = _move_pixels(images, chosen, strengths)
    images = _change_levels(images, chosen, strengths, by_comparison)
    return _blend(images, chosen, strengths.factor)


def _pick(chosen: Mapping[str, tf.Tensor], values: Mapping[str, tf.Tensor], otherwise: float) -> tf.Tensor:
    """A parameter of each example: `values` of the operation that the example chose.

    Args:
        chosen: Name of each operation to bool [n].
        values: Names of some operations to float32 [n].
        otherwise: The parameter of examples that chose another operation.

    Returns:
        float32 [n].
    """
    result = tf.fill(tf.shape(chosen["identity"]), tf.cast(otherwise, tf.float32))
    for name, value in values.items():
        result = tf.where(chosen[name], value, result)
    return result


def _move_pixels(images: tf.Tensor, chosen: Mapping[str, tf.Tensor], strengths: Strengths) -> tf.Tensor:
    """Takes each pixel from its nearest source under a linear map around the middle."""
    height, width = image_size(images)
    x_of_x = _pick(chosen, {"rotate": strengths.cosine}, 1)
    x_of_y = _pick(chosen, {"rotate": strengths.sine, "shear_x": strengths.shear}, 0)
    y_of_x = _pick(chosen, {"rotate": -strengths.sine, "shear_y": strengths.shear}, 0)
    x_shift = _pick(chosen, {"translate_x": strengths.across}, 0)
    y_shift = _pick(chosen, {"translate_y": strengths.down}, 0)
    y, x = (tf.range(side, dtype=tf.float32) - (side - 1) / 2 for side in (height, width))
    y, x = y[None, :, None], x[None, None, :]

    def spread(value: tf.Tensor) -> tf.Tensor:
        return value[:, None, None]

    from_x = spread(x_of_x) * x + spread(x_of_y) * y + spread(x_shift) + (width - 1) / 2
    from_y = spread(y_of_x) * x + spread(x_of_x) * y + spread(y_shift) + (height - 1) / 2
    column, row = tf.cast(tf.round(from_x), tf.int32), tf.cast(tf.round(from_y), tf.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = tf.reshape(images, [-1, height * width, 3])
    sources = tf.clip_by_value(row, 0, height - 1) * width + tf.clip_by_value(column, 0, width - 1)
    moved = tf.gather(flat, tf.reshape(sources, [-1, height * width]), batch_dims=1)
    moved = tf.where(tf.reshape(inside, [-1, height * width, 1]), moved, tf.constant(_GREY, tf.uint8))
    return tf.reshape(moved, tf.shape(images))


def _change_levels(images: tf.Tensor, chosen: Mapping[str, tf.Tensor], strengths: Strengths,
                   by_comparison: bool) -> tf.Tensor:
    """Gives each of the 256 levels of each channel a new value."""
    n, (height, width) = tf.shape(images)[0], image_size(images)
    levels = tf.range(256, dtype=tf.float32)[None, None, :]  # of [n, 3, 256], as all tables here
    where = {name: mask[:, None, None] for name, mask in chosen.items()}
    factor, step, threshold = (strength[:, None, None] for strength in (
        strengths.factor, strengths.step, strengths.threshold))
    values = tf.cast(images, tf.int32)
    channel = tf.range(n * 3)
    slots = tf.reshape(tf.transpose(tf.reshape(values, [n, height * width, 3]), [0, 2, 1]), [n * 3, -1])
    counts = histograms(values, by_comparison)
    grey = mean_luma(values)[:, None, None]
    table = levels + tf.zeros([n, 3, 256])
    table = tf.where(where["brightness"], levels * factor, table)
    table = tf.where(where["contrast"], grey + (levels - grey) * factor, table)
    table = tf.where(where["posterize"], tf.floor(levels / step) * step, table)
    table = tf.where(where["solarize"], tf.where(levels < threshold, levels, 255 - levels), table)
    table = tf.where(where["autocontrast"], _autocontrast(counts, levels), table)
    table = tf.where(where["equalize"], tf.cast(_equalize(counts), tf.float32), table)
    table = tf.reshape(tf.cast(tf.clip_by_value(table, 0, 255), tf.uint8), [-1])
    new = tf.gather(table, slots + channel[:, None] * 256)
    return tf.reshape(tf.transpose(tf.reshape(new, [n, 3, -1]), [0, 2, 1]), tf.shape(images))


def histograms(values: tf.Tensor, by_comparison: bool) -> tf.Tensor:
    """How many pixels each level has in each channel.

    Args:
        values: int32 [n, height, width, 3] from 0 to 255.
        by_comparison: Whether to compare each pixel with each level, which XLA does on a GPU without writing anything
            between; otherwise ones are scattered, which is ten times as fast on a CPU, and on a GPU makes all threads
            wait for each other.

    Returns:
        int32 [n, 3, 256].
    """
    height, width = image_size(values)
    n, pixels = tf.shape(values)[0], height * width
    flat = tf.reshape(values, [n, pixels, 3])
    if by_comparison:
        pixel_column = flat[..., None]  # pyright: ignore[reportArgumentType]  the stub knows no ellipsis
        return tf.reduce_sum(tf.cast(tf.equal(pixel_column, tf.range(256)), tf.int32), 1)
    slots = tf.reshape(tf.transpose(flat, [0, 2, 1]), [n * 3, pixels]) + tf.range(n * 3)[:, None] * 256
    return tf.reshape(tf.math.unsorted_segment_sum(tf.ones_like(slots), slots, n * 3 * 256), [n, 3, 256])


def luma(values: tf.Tensor) -> tf.Tensor:
    """Grey as ITU-R 601-2 weighs colours, in Pillow's whole numbers: int32 [n, height, width]."""
    red, green, blue = tf.unstack(values, axis=-1)
    return (red * 19595 + green * 38470 + blue * 7471 + 2**15) // 2**16


def mean_luma(values: tf.Tensor) -> tf.Tensor:
    """The mean grey of each image of int32 [n, height, width, 3], in whole numbers: float32 [n]."""
    return tf.floor(tf.reduce_mean(tf.cast(luma(values), tf.float32), [1, 2]) + 0.5)


def _autocontrast(counts: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0 to 255: float32 [n, 3, 256]."""
    used = counts > 0
    low = tf.reduce_min(tf.where(used, levels, 255.0), -1, keepdims=True)
    high = tf.reduce_max(tf.where(used, levels, 0.0), -1, keepdims=True)
    scale = 255 / tf.maximum(high - low, 1)
    return tf.where(high > low, tf.floor(levels * scale - low * scale), levels)


def _equalize(counts: tf.Tensor) -> tf.Tensor:
    """Spreads each channel's levels so that they are used equally often: int32 [n, 3, 256]."""
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256)[None, None, :], 0), -1, keepdims=True)
    step = (tf.reduce_sum(counts, -1, keepdims=True) - tf.gather(counts, last, batch_dims=2)) // 255
    before = tf.cumsum(counts, -1, exclusive=True)
    spread = (before + step // 2) // tf.maximum(step, 1)
    return tf.where(step > 0, tf.minimum(spread, 255), tf.range(256)[None, None, :])


def _blend(images: tf.Tensor, chosen: Mapping[str, tf.Tensor], factor: tf.Tensor) -> tf.Tensor:
    """Averages each image with its grey or its blurred form, or moves it away from that; `factor` is float32 [n]."""
    values = tf.cast(images, tf.float32)
    grey = tf.cast(luma(tf.cast(images, tf.int32)), tf.float32)
    grey = grey[..., None] + tf.zeros_like(values)  # pyright: ignore[reportArgumentType]
    other = tf.where(chosen["color"][:, None, None, None], grey, _blurred(values))
    weight = _pick(chosen, {"color": factor, "sharpness": factor}, 1)[:, None, None, None]
    changed = tf.cast(blended(values, other, weight), tf.uint8)
    return tf.where((chosen["color"] | chosen["sharpness"])[:, None, None, None], changed, images)


def blended(values: tf.Tensor, other: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """The weighed mean of an image and another; of a weight above 1, the image moved away from the other.

    Args:
        values, other: Of 0 to 255, float32.
        weight: Of `values`, float32.

    Returns:
        Whole numbers from 0 to 255, float32: as Pillow's `blend`, rounded down.
    """
    return tf.floor(tf.clip_by_value(other + (values - other) * weight, 0, 255))


def _blurred(values: tf.Tensor) -> tf.Tensor:
    """Averages each pixel with its neighbours, itself five times of thirteen; the border stays as it is."""
    height, width = image_size(values)
    total = 4 * values[:, 1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            total += values[:, row:height - 2 + row, column:width - 2 + column]
    inner = tf.pad(tf.floor(total / 13 + 0.5), [[0, 0], [1, 1], [1, 1], [0, 0]])
    edge = np.pad(np.zeros((height - 2, width - 2), bool), 1, constant_values=True)[None, :, :, None]
    return tf.where(edge, values, inner)
