"""Mirrors half of the images left to right. Uses random number 0."""

from trainer.data.augment.random_ints import random_ints
from trainer.process.tf_import import tf


def augment(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Mirrors images: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape."""
    n, height, width, channels = images.shape
    # As rows of pixels, and chosen image by image: without XLA eighteen times as fast as `where` and `[::-1]`.
    rows = tf.reshape(images, [-1, width, channels])
    mirrored = tf.reshape(tf.reverse(rows, [1]), [-1, height, width, channels])
    both = tf.concat([images, mirrored], 0)
    chosen = tf.range(n) + n * random_ints(seeds, 0, 2)  # pyright: ignore[reportOptionalOperand]  n is known beforehand
    return tf.gather(both, chosen)
