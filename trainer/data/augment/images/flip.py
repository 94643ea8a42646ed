"""Mirrors half of the images left to right. Uses random number 0."""

from trainer.data.augment.random_ints import random_ints
from trainer.process.tf_import import tf


def augment(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Mirrors images: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape."""
    return mirrored(images, random_ints(seeds, 0, 2))


def mirrored(images: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """Mirrors some images left to right.

    Args:
        images: uint8 [n, height, width, channels]; n is known.
        which: int32 [n], 1 for those that are mirrored, else 0.

    Returns:
        uint8 of the same shape.
    """
    n, height, width, channels = images.shape
    # As rows of pixels, and chosen image by image: without XLA eighteen times as fast as `where` and `[::-1]`.
    rows = tf.reshape(images, [-1, width, channels])
    others = tf.reshape(tf.reverse(rows, [1]), [-1, height, width, channels])
    both = tf.concat([images, others], 0)
    chosen = tf.range(n) + n * which  # pyright: ignore[reportOptionalOperand]  n is known beforehand
    return tf.gather(both, chosen)
