"""Greys a square of half the side at a random position, partly outside at times (DeVries & Taylor 2017).

Uses random numbers 3 and 4.
"""

from trainer.data.augment.image_size import image_size
from trainer.data.augment.random_ints import random_ints
from trainer.process.tf_import import tf

GREY = 128


def augment(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Greys squares: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape."""
    height, width = image_size(images)
    rows = tf.abs(tf.range(height) - random_ints(seeds, 3, height)[:, None]) * 2 < height // 2
    columns = tf.abs(tf.range(width) - random_ints(seeds, 4, width)[:, None]) * 2 < width // 2
    hole = rows[:, :, None] & columns[:, None, :]
    return tf.where(hole[..., None], tf.constant(GREY, tf.uint8), images)
