"""Noise in a random box of a quarter of the images (Zhong et al. 2017, arXiv:1708.04896, "RE-R").

Every value in the box is drawn evenly from 0 to 255, which did best in the paper; probability, area and shape are
timm's. Uses random numbers 20, 21 and 140 to 179.
"""

import numpy as np

from trainer.data.augment.boxes import random_boxes
from trainer.data.augment.image_size import image_size
from trainer.data.augment.random_ints import random_bytes, uniform
from trainer.process.tf_import import tf

PROBABILITY, AREA, RATIO = 0.25, (0.02, 1 / 3), (0.3, 1 / 0.3)
_ATTEMPTS = 10
# A table: the last bit of powers that TensorFlow computes depends on an example's place in the batch.
_RATIOS = np.geomspace(*RATIO, 1024, dtype=np.float32)


def augment(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Erases boxes: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape."""
    height, width = image_size(images)
    boxes, fits = random_boxes(seeds, 140, (height, width), area=AREA, ratio_of=_ratio_of, attempts=_ATTEMPTS)
    top, left, tall, wide = tf.unstack(boxes, axis=1)
    box = _inside(top, tall, height)[:, :, None] & _inside(left, wide, width)[:, None, :]
    erased = box & (fits & (uniform(seeds, 20) < PROBABILITY))[:, None, None]
    # The first values are the first channel's, so an image of one channel is erased as the first of three is.
    channels = images.shape[-1] or 0
    noise = tf.reshape(random_bytes(seeds, 21, height * width * channels), [-1, channels, height, width])
    noise = tf.cast(tf.transpose(noise, [0, 2, 3, 1]), tf.uint8)
    return tf.where(erased[..., None], noise, images)  # pyright: ignore[reportArgumentType]  the stub knows no ellipsis


def _ratio_of(drawn: tf.Tensor) -> tf.Tensor:
    """Ratios whose logarithms are uniform, of uniform numbers from 0 to below 1."""
    return tf.gather(tf.constant(_RATIOS), tf.cast(drawn * len(_RATIOS), tf.int32))


def _inside(begin: tf.Tensor, length: tf.Tensor, size: int) -> tf.Tensor:
    """Which of the pixels along a side have their middle in a stretch: bool [n, size]."""
    middles = tf.range(size, dtype=tf.float32) + 0.5
    return (middles >= begin[:, None]) & (middles < (begin + length)[:, None])
