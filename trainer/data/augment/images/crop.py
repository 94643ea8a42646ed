"""Cuts out a part of each image: small images as CIFAR's (He et al. 2015, §4.2), others as ImageNet's.

The latter are those of Szegedy et al. 2015, §6. Draws numbers 1, 2 and 100 to 139.
"""

from trainer.data.augment.random_ints import draw, uniform
from trainer.data.images.crops import AREA, ATTEMPTS, LARGE, RATIO
from trainer.process.tf_import import tf

PADDING = 4


def augment(images, seeds):
    """Applies it: uint8 [n, height, width, channels] and seeds uint32 [n] to images of the same shape."""
    return _resized_crop(images, seeds) if min(images.shape[1:3]) > LARGE else _padded_crop(images, seeds)


def _padded_crop(images, seeds):
    """Pads by 4 black pixels and cuts the old size out at a random place."""
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [PADDING, PADDING], [PADDING, PADDING], [0, 0]])
    rows = draw(seeds, 1, 2 * PADDING + 1)[:, None] + tf.range(height)
    columns = draw(seeds, 2, 2 * PADDING + 1)[:, None] + tf.range(width)
    padded = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(padded, columns, axis=2, batch_dims=1)


def _resized_crop(images, seeds):
    """Cuts a random box out and brings it back to the old size, bilinear; all of the image if no box fits."""
    height, width = (float(side) for side in images.shape[1:3])
    area, ratio, top, left = (tf.stack([uniform(seeds, 100 + 4 * attempt + part) for attempt in range(ATTEMPTS)])
                              for part in range(4))
    area = (AREA[0] + area * (AREA[1] - AREA[0])) * height * width
    ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** ratio
    tall, wide = tf.sqrt(area / ratio), tf.sqrt(area * ratio)
    fits = (tall <= height) & (wide <= width)
    boxes = tf.stack([top * (height - tall), left * (width - wide), tall, wide], -1)
    first = tf.argmax(tf.cast(fits, tf.int32), 0, tf.int32)
    chosen = tf.gather(tf.transpose(boxes, [1, 0, 2]), first, axis=1, batch_dims=1)
    boxes = tf.where(tf.reduce_any(fits, 0)[:, None], chosen, [0.0, 0.0, height, width])
    top, left, tall, wide = tf.unstack(boxes, axis=1)
    rows = _interpolation(top, tall, images.shape[1])
    columns = _interpolation(left, wide, images.shape[2])
    resized = tf.einsum("nih,nhwc,njw->nijc", rows, tf.cast(images, tf.float32), columns)
    return tf.cast(tf.round(resized), tf.uint8)


def _interpolation(begin, length, size):
    """float32 [n, size, size]: which old pixels make up each new one, along one side."""
    centres = begin[:, None] + (tf.range(size, dtype=tf.float32) + 0.5) * (length / size)[:, None] - 0.5
    centres = tf.clip_by_value(centres, 0.0, size - 1.0)
    return tf.nn.relu(1.0 - tf.abs(centres[:, :, None] - tf.range(size, dtype=tf.float32)))
