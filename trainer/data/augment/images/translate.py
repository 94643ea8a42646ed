"""Moves each image by up to 2 pixels along each side, onto its own mirrored border.

Jordan 2024, arXiv:2404.00498, section 3.1. Uses random numbers 32 and 33.
"""

from trainer.data.augment.image_size import image_size
from trainer.data.augment.random_ints import random_ints
from trainer.errors import UsageError
from trainer.process.tf_import import tf

MOST = 2  # pixels


def augment(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Moves images: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape.

    Raises:
        UsageError: if the images are too small to be mirrored.
    """
    height, width = image_size(images)
    if min(height, width) <= MOST:
        raise UsageError(f"--augment=translate moves images of more than {MOST} pixels; received {height} × {width}",
                         "leave translate out of --augment")
    rows, columns = (_sources(random_ints(seeds, index, 2 * MOST + 1), side)
                     for index, side in ((32, height), (33, width)))
    return tf.gather(tf.gather(images, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def _sources(drawn: tf.Tensor, side: int) -> tf.Tensor:
    """Where each pixel of a side comes from, the outermost pixel not repeated: int32 [n, side]."""
    places = drawn[:, None] + tf.range(side) - MOST
    places = tf.where(places < 0, -places, places)
    return tf.where(places < side, places, 2 * (side - 1) - places)
