"""Greys a square of half the side at a random place, partly outside at times (DeVries & Taylor 2017).

Draws numbers 3 and 4.
"""

from trainer.data.augment.random_ints import draw
from trainer.process.tf_import import tf

GREY = 128


def augment(images, seeds):
    """Applies it: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape."""
    height, width = images.shape[1:3]
    rows = tf.abs(tf.range(height) - draw(seeds, 3, height)[:, None]) * 2 < height // 2
    columns = tf.abs(tf.range(width) - draw(seeds, 4, width)[:, None]) * 2 < width // 2
    hole = rows[:, :, None] & columns[:, None, :]
    return tf.where(hole[..., None], tf.constant(GREY, tf.uint8), images)
