"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719): two random changes of an image, at magnitude 9 of 30.

Each example draws its own changes. So that a whole batch can do different ones at once, on the device and under
XLA, every change is one of three kinds, and each kind is applied to all images with parameters that leave
those alone that drew another kind:

    place    where each pixel comes from    shear, translate, rotate
    levels   a table of 256 new values      brightness, contrast, posterize, solarize, autocontrast, equalize
    blend    with another image           colour (with a grey one), sharpness (with a blurred one)

The changes and their ranges are those of the paper's table, each with a random sign where it has one; what comes
from outside the image is grey. Levels and blends are Pillow's, to the last bit or nearly. Draws numbers 16 to 19.
"""

import numpy as np

from trainer.data.augment.random_ints import draw
from trainer.process.tf_import import tf

LAYERS, MAGNITUDE = 2, 9 / 30
OPERATIONS = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "contrast",
              "posterize", "solarize", "autocontrast", "equalize", "color", "sharpness")
_GREY = 128
_FIRST_DRAW = 16


def augment(images, seeds, by_comparison=False):
    """Applies two random changes to each image.

    Args:
        images: uint8 [n, height, width, 3].
        seeds: uint32 [n].
        by_comparison: As in `histograms`.

    Returns:
        uint8 of the same shape.
    """
    for layer in range(LAYERS):
        number = _FIRST_DRAW + 2 * layer
        images = apply(images, draw(seeds, number, len(OPERATIONS)), draw(seeds, number + 1, 2),
                       by_comparison=by_comparison)
    return images


def apply(images, operations, signs, magnitude=MAGNITUDE, by_comparison=False):
    """Applies one change to each image.

    Args:
        images: uint8 [n, height, width, 3].
        operations: int32 [n], indices into `OPERATIONS`.
        signs: int32 [n], 1 for the other direction.
        magnitude: From 0 to 1.
        by_comparison: As in `histograms`.

    Returns:
        uint8 of the same shape.
    """
    chosen = {name: tf.equal(operations, number) for number, name in enumerate(OPERATIONS)}
    strength = tf.where(tf.equal(signs, 1), -magnitude, magnitude)
    images = _place(images, chosen, strength)
    images = _levels(images, chosen, 1 + 0.9 * strength, magnitude, by_comparison)
    return _blend(images, chosen, 1 + 0.9 * strength)


def _pick(chosen, values, otherwise):
    """float32 [n]: the value of what each example chose."""
    result = tf.fill(tf.shape(chosen["identity"]), tf.cast(otherwise, tf.float32))
    for name, value in values.items():
        result = tf.where(chosen[name], value, result)
    return result


def _place(images, chosen, strength):
    """Where pixels come from: the nearest one under a linear map around the middle."""
    height, width = images.shape[1:3]
    angle = strength * (np.pi / 6)
    x_of_x = _pick(chosen, {"rotate": tf.cos(angle)}, 1)
    x_of_y = _pick(chosen, {"rotate": tf.sin(angle), "shear_x": 0.3 * strength}, 0)
    y_of_x = _pick(chosen, {"rotate": -tf.sin(angle), "shear_y": 0.3 * strength}, 0)
    x_on = _pick(chosen, {"translate_x": tf.round(150 / 331 * width * strength)}, 0)
    y_on = _pick(chosen, {"translate_y": tf.round(150 / 331 * height * strength)}, 0)
    y, x = (tf.range(side, dtype=tf.float32) - (side - 1) / 2 for side in (height, width))
    y, x = y[None, :, None], x[None, None, :]

    def spread(value):
        return value[:, None, None]

    from_x = spread(x_of_x) * x + spread(x_of_y) * y + spread(x_on) + (width - 1) / 2
    from_y = spread(y_of_x) * x + spread(x_of_x) * y + spread(y_on) + (height - 1) / 2
    column, row = tf.cast(tf.round(from_x), tf.int32), tf.cast(tf.round(from_y), tf.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = tf.reshape(images, [-1, height * width, 3])
    at = tf.clip_by_value(row, 0, height - 1) * width + tf.clip_by_value(column, 0, width - 1)
    moved = tf.gather(flat, tf.reshape(at, [-1, height * width]), batch_dims=1)
    moved = tf.where(tf.reshape(inside, [-1, height * width, 1]), moved, tf.constant(_GREY, tf.uint8))
    return tf.reshape(moved, tf.shape(images))


def _levels(images, chosen, factor, magnitude, by_comparison):
    """A new value for each of the 256 levels of each channel."""
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    levels = tf.range(256, dtype=tf.float32)[None, None, :]  # of [n, 3, 256], as all tables here
    where = {name: mine[:, None, None] for name, mine in chosen.items()}
    by = factor[:, None, None]
    values = tf.cast(images, tf.int32)
    channel = tf.range(n * 3)
    slots = tf.reshape(tf.transpose(tf.reshape(values, [n, height * width, 3]), [0, 2, 1]), [n * 3, -1])
    counts = histograms(values, by_comparison)
    grey = tf.floor(tf.reduce_mean(tf.cast(_luma(values), tf.float32), [1, 2]) + 0.5)[:, None, None]
    keep = 8 - round(4 * magnitude)
    threshold = 256 * (1 - magnitude)
    table = levels + tf.zeros([n, 3, 256])
    table = tf.where(where["brightness"], levels * by, table)
    table = tf.where(where["contrast"], grey + (levels - grey) * by, table)
    table = tf.where(where["posterize"], tf.floor(levels / 2 ** (8 - keep)) * 2 ** (8 - keep), table)
    table = tf.where(where["solarize"], tf.where(levels < threshold, levels, 255 - levels), table)
    table = tf.where(where["autocontrast"], _autocontrast(counts, levels), table)
    table = tf.where(where["equalize"], tf.cast(_equalize(counts), tf.float32), table)
    table = tf.reshape(tf.cast(tf.clip_by_value(table, 0, 255), tf.uint8), [-1])
    new = tf.gather(table, slots + channel[:, None] * 256)
    return tf.reshape(tf.transpose(tf.reshape(new, [n, 3, -1]), [0, 2, 1]), tf.shape(images))


def histograms(values, by_comparison):
    """How often each level is there in each channel.

    Args:
        values: int32 [n, height, width, 3] from 0 to 255.
        by_comparison: Compare each pixel with each level, which XLA does on a GPU without writing anything between;
            otherwise scatter ones, which is ten times as fast on a CPU, and on a GPU makes all wait for each other.

    Returns:
        int32 [n, 3, 256].
    """
    n, pixels = tf.shape(values)[0], values.shape[1] * values.shape[2]
    flat = tf.reshape(values, [n, pixels, 3])
    if by_comparison:
        return tf.reduce_sum(tf.cast(tf.equal(flat[..., None], tf.range(256)), tf.int32), 1)
    slots = tf.reshape(tf.transpose(flat, [0, 2, 1]), [n * 3, pixels]) + tf.range(n * 3)[:, None] * 256
    return tf.reshape(tf.math.unsorted_segment_sum(tf.ones_like(slots), slots, n * 3 * 256), [n, 3, 256])


def _luma(values):
    """Grey as ITU-R 601-2 weighs colours, in Pillow's whole numbers: int32 [n, height, width]."""
    red, green, blue = tf.unstack(values, axis=-1)
    return (red * 19595 + green * 38470 + blue * 7471 + 2**15) // 2**16


def _autocontrast(counts, levels):
    """Stretches each channel to 0 to 255."""
    there = counts > 0
    low = tf.reduce_min(tf.where(there, levels, 255.0), -1, keepdims=True)
    high = tf.reduce_max(tf.where(there, levels, 0.0), -1, keepdims=True)
    scale = 255 / tf.maximum(high - low, 1)
    return tf.where(high > low, tf.floor(levels * scale - low * scale), levels)


def _equalize(counts):
    """Spreads each channel's levels so that they are used equally often: int32 [n, 3, 256]."""
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256)[None, None, :], 0), -1, keepdims=True)
    step = (tf.reduce_sum(counts, -1, keepdims=True) - tf.gather(counts, last, batch_dims=2)) // 255
    before = tf.cumsum(counts, -1, exclusive=True)
    spread = (before + step // 2) // tf.maximum(step, 1)
    return tf.where(step > 0, tf.minimum(spread, 255), tf.range(256)[None, None, :])


def _blend(images, chosen, factor):
    """A mean with the grey or the blurred image, or away from it."""
    values = tf.cast(images, tf.float32)
    grey = tf.cast(_luma(tf.cast(images, tf.int32)), tf.float32)[..., None] + tf.zeros_like(values)
    other = tf.where(chosen["color"][:, None, None, None], grey, _blurred(values))
    by = _pick(chosen, {"color": factor, "sharpness": factor}, 1)[:, None, None, None]
    blended = tf.cast(tf.clip_by_value(other + (values - other) * by, 0, 255), tf.uint8)
    return tf.where((chosen["color"] | chosen["sharpness"])[:, None, None, None], blended, images)


def _blurred(values):
    """Each pixel with its neighbours, itself five times of thirteen; the border stays as it is."""
    height, width = values.shape[1:3]
    total = 4 * values[:, 1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            total += values[:, row:height - 2 + row, column:width - 2 + column]
    inner = tf.pad(tf.floor(total / 13 + 0.5), [[0, 0], [1, 1], [1, 1], [0, 0]])
    edge = np.pad(np.zeros((height - 2, width - 2), bool), 1, constant_values=True)[None, :, :, None]
    return tf.where(edge, values, inner)
