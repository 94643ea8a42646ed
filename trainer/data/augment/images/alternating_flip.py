"""Mirrors half of the images left to right in one epoch, and the other half in the next: both forms in any two epochs.

Jordan 2024, arXiv:2404.00498, section 3.6. Uses the lowest bit of the seed, which order.py alternates for it, and no
random number.
"""

from trainer.data.augment.images.flip import mirrored
from trainer.process.tf_import import tf


def augment(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Mirrors images: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape."""
    return mirrored(images, tf.cast(tf.bitwise.bitwise_and(seeds, tf.constant(1, tf.uint32)), tf.int32))
