"""Augmentation: pictures in, pictures out, on the device and under XLA.

A pure function of the picture and a 32-bit seed that follows from (run seed, epoch, example id), so an
example looks the same whichever replica sees it and after any resume. The random numbers come from
integer arithmetic, not from TensorFlow's random ops, which give other values under XLA than outside.
"""

import tensorflow as tf

PADDING = 4


def augment(images, seeds, names):
    """Applies the named augmentations in their order.

    Args:
        images: uint8 [n, height, width, channels].
        seeds: uint32 [n], one per example.
        names: Members of `--augment`.

    Returns:
        uint8 of the same shape.
    """
    for name in names:
        images = _AUGMENTATIONS[name](images, seeds)
    return images


def draw(seeds, number, below):
    """Independent whole numbers for each example.

    Args:
        seeds: uint32 [n].
        number: Which of an example's random numbers this is; another number, another draw.
        below: Draws are from 0 to below - 1, all but equally likely for `below` much under 2**24.

    Returns:
        int32 [n].
    """
    x = seeds + tf.constant((number * 0x9E3779B9 + 0x85EBCA6B) % 2**32, tf.uint32)
    # "lowbias32", the best of its form found by C. Wellons's search for integer hashes (2018).
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x *= tf.constant(factor, tf.uint32)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))
    high = tf.cast(tf.bitwise.right_shift(x, tf.constant(8, tf.uint32)), tf.int32)
    return high % below


def flip(images, seeds):
    """Mirrors half of the pictures left to right."""
    mirrored = tf.equal(draw(seeds, 0, 2), 1)
    return tf.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def crop(images, seeds):
    """Pads by 4 black pixels and cuts the old size out at a random place (He et al. 2015, §4.2)."""
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [PADDING, PADDING], [PADDING, PADDING], [0, 0]])
    rows = draw(seeds, 1, 2 * PADDING + 1)[:, None] + tf.range(height)
    columns = draw(seeds, 2, 2 * PADDING + 1)[:, None] + tf.range(width)
    padded = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(padded, columns, axis=2, batch_dims=1)


_AUGMENTATIONS = {"flip": flip, "crop": crop}
