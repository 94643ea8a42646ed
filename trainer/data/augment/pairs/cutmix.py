"""A box of the other image, of a uniformly random share of the area, at a random place (Yun et al. 2019).

Draws numbers 7, 8 and 9.
"""

from trainer.data.augment.random_ints import draw, uniform
from trainer.process.tf_import import tf


def mix(images, partners, seeds):
    """Applies it.

    Args:
        images, partners: float32 [n, height, width, channels].
        seeds: uint32 [n].

    Returns:
        (float32 images, the share of `images` in each: float32 [n]).
    """
    height, width = images.shape[1:3]
    side = tf.sqrt(uniform(seeds, 7))

    def inside(number, size):
        centre, half = tf.cast(draw(seeds, number, size), tf.float32) + 0.5, side * size / 2
        at = tf.range(size, dtype=tf.float32) + 0.5
        return tf.abs(at - centre[:, None]) < half[:, None]

    box = inside(8, height)[:, :, None] & inside(9, width)[:, None, :]
    lam = 1 - tf.reduce_mean(tf.cast(box, tf.float32), [1, 2])
    return tf.where(box[..., None], partners, images), lam
