"""A box of the other image, of a uniformly random share of the area, at a random position (Yun et al. 2019).

Uses random numbers 7, 8 and 9.
"""

from trainer.data.augment.image_size import image_size
from trainer.data.augment.random_ints import random_ints, uniform
from trainer.process.tf_import import tf


def mix(images: tf.Tensor, partners: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a box of each partner into its image.

    Args:
        images, partners: float32 [n, height, width, channels].
        seeds: uint32 [n].

    Returns:
        (images, lam: the share of `images` in each), float32 as the images, and float32 [n].
    """
    height, width = image_size(images)
    side = tf.sqrt(uniform(seeds, 7))

    def inside(index: int, size: int) -> tf.Tensor:
        centre, half = tf.cast(random_ints(seeds, index, size), tf.float32) + 0.5, side * size / 2
        pixels = tf.range(size, dtype=tf.float32) + 0.5
        return tf.abs(pixels - centre[:, None]) < half[:, None]

    box = inside(8, height)[:, :, None] & inside(9, width)[:, None, :]
    lam = 1 - tf.reduce_mean(tf.cast(box, tf.float32), [1, 2])
    return tf.where(box[..., None], partners, images), lam  # pyright: ignore[reportArgumentType]  the stub knows no ellipsis
