"""Brightness, contrast and saturation, each by a factor from 0.6 to 1.4 and in a random order.

As torchvision's ColorJitter(0.4, 0.4, 0.4): the levels are Pillow's. Uses random numbers 28 to 31.
"""

import itertools

import numpy as np

from trainer.data.augment.operations import blended, in_colour, luma, mean_luma
from trainer.data.augment.random_ints import random_ints, uniform
from trainer.process.tf_import import tf

STRENGTH = 0.4
BRIGHTNESS, CONTRAST, SATURATION = range(3)
ORDERS = np.array(list(itertools.permutations((BRIGHTNESS, CONTRAST, SATURATION))), np.int32)


def augment(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Changes colours.

    Args:
        images: uint8 [n, height, width, 3], or with one channel, whose saturation stays.
        seeds: uint32 [n].

    Returns:
        uint8 of the same shape.

    Raises:
        UsageError: if the images have another number of channels.
    """
    drawn = random_ints(seeds, 28, len(ORDERS))
    factors = tf.stack([1 - STRENGTH + 2 * STRENGTH * uniform(seeds, 29 + kind) for kind in range(len(ORDERS[0]))], 1)
    return in_colour("jitter", images, lambda images: apply(images, drawn, factors))


def apply(images: tf.Tensor, drawn: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast and saturation.

    Args:
        images: uint8 [n, height, width, 3].
        drawn: int32 [n], rows of `ORDERS`.
        factors: float32 [n, 3], of brightness, contrast and saturation; 1 changes nothing.

    Returns:
        uint8 of the same shape.
    """
    values = tf.cast(images, tf.float32)
    orders = tf.one_hot(drawn, len(ORDERS)) @ tf.constant(ORDERS, tf.float32)  # a table that any device can look up
    for turn in range(len(ORDERS[0])):
        is_contrast, is_saturation = (tf.equal(orders[:, turn], float(kind)) for kind in (CONTRAST, SATURATION))
        factor = tf.where(is_contrast, factors[:, CONTRAST], factors[:, BRIGHTNESS])
        factor = tf.where(is_saturation, factors[:, SATURATION], factor)[:, None, None, None]
        whole = tf.cast(values, tf.int32)
        level = tf.where(is_contrast, mean_luma(whole), 0.0)[:, None, None]
        other = tf.where(is_saturation[:, None, None], tf.cast(luma(whole), tf.float32), level)
        values = blended(values, other[..., None], factor)  # pyright: ignore[reportArgumentType]
    return tf.cast(values, tf.uint8)
