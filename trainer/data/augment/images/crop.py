"""Cuts out a part of each image: small images as CIFAR's (He et al. 2015, §4.2), others as ImageNet's.

The latter are those of Szegedy et al. 2015, §6. Uses random numbers 1, 2 and 100 to 139.
"""

from trainer.data.augment.image_size import image_size
from trainer.data.augment.random_ints import random_ints, uniform
from trainer.data.images.crops import AREA, ATTEMPTS, LARGE, RATIO
from trainer.process.tf_import import tf

PADDING = 4


def augment(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Crops: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape."""
    return _resized_crop(images, seeds) if min(image_size(images)) > LARGE else _padded_crop(images, seeds)


def _padded_crop(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Pads by 4 black pixels and cuts the old size out at a random position."""
    height, width = image_size(images)
    padded = tf.pad(images, [[0, 0], [PADDING, PADDING], [PADDING, PADDING], [0, 0]])
    rows = random_ints(seeds, 1, 2 * PADDING + 1)[:, None] + tf.range(height)
    columns = random_ints(seeds, 2, 2 * PADDING + 1)[:, None] + tf.range(width)
    padded = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(padded, columns, axis=2, batch_dims=1)


def _resized_crop(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Cuts a random box out and resizes it to the old size, bilinear; takes all of the image if no box fits."""
    height, width = image_size(images)
    area, ratio, top, left = (tf.stack([uniform(seeds, 100 + 4 * attempt + part) for attempt in range(ATTEMPTS)])
                              for part in range(4))
    area = (AREA[0] + area * (AREA[1] - AREA[0])) * float(height) * float(width)
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** ratio
    tall, wide = tf.sqrt(area / ratio), tf.sqrt(area * ratio)
    fits = (tall <= height) & (wide <= width)
    boxes = tf.stack([top * (height - tall), left * (width - wide), tall, wide], -1)
    first = tf.argmax(tf.cast(fits, tf.int32), 0, tf.int32)
    chosen = tf.gather(tf.transpose(boxes, [1, 0, 2]), first, axis=1, batch_dims=1)
    boxes = tf.where(tf.reduce_any(fits, 0)[:, None], chosen, [0.0, 0.0, float(height), float(width)])
    top, left, tall, wide = tf.unstack(boxes, axis=1)
    rows = _interpolation(top, tall, height)
    columns = _interpolation(left, wide, width)
    resized = tf.einsum("nih,nhwc,njw->nijc", rows, tf.cast(images, tf.float32), columns)
    return tf.cast(tf.round(resized), tf.uint8)


def _interpolation(begin: tf.Tensor, length: tf.Tensor, size: int) -> tf.Tensor:
    """The weights of old pixels in each new one, along one side.

    Args:
        begin, length: float32 [n], in pixels: the stretch that is resized.
        size: Pixels of the side, old and new.

    Returns:
        float32 [n, size, size].
    """
    centres = begin[:, None] + (tf.range(size, dtype=tf.float32) + 0.5) * (length / size)[:, None] - 0.5
    centres = tf.clip_by_value(centres, 0.0, size - 1.0)
    return tf.nn.relu(1.0 - tf.abs(centres[:, :, None] - tf.range(size, dtype=tf.float32)))
