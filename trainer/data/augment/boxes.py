"""Random boxes of images, of a share of the area and a shape that are drawn."""

from collections.abc import Callable

from trainer.data.augment.random_ints import uniform
from trainer.process.tf_import import tf


def random_boxes(seeds: tf.Tensor, first_index: int, size: tuple[int, int], *, area: tuple[float, float],
                 ratio_of: Callable[[tf.Tensor], tf.Tensor], attempts: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The first of some random boxes that fits into the image.

    Args:
        seeds: uint32 [n].
        first_index: Of the random numbers, of which each attempt takes four.
        size: Height and width of the images, in pixels.
        area: The least and the largest share of the area of an image, drawn evenly.
        ratio_of: Makes ratios of width to height of uniform random numbers from 0 to below 1.
        attempts: Number of boxes that are tried.

    Returns:
        (boxes: float32 [n, 4] of top, left, height, width in pixels, whether one fitted: bool [n]).
    """
    height, width = size
    share, shape, top, left = (tf.stack([uniform(seeds, first_index + 4 * attempt + part)
                                         for attempt in range(attempts)]) for part in range(4))
    share = (area[0] + share * (area[1] - area[0])) * float(height) * float(width)
    ratio = ratio_of(shape)
    tall, wide = tf.sqrt(share / ratio), tf.sqrt(share * ratio)
    fits = (tall <= height) & (wide <= width)
    boxes = tf.stack([top * (height - tall), left * (width - wide), tall, wide], -1)
    first = tf.argmax(tf.cast(fits, tf.float32), 0, tf.int32)  # of int32 there is no kernel for GPUs
    return tf.gather(tf.transpose(boxes, [1, 0, 2]), first, axis=1, batch_dims=1), tf.reduce_any(fits, 0)
