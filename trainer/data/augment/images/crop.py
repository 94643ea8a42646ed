"""Cuts out a part of each image: small images as CIFAR's (He et al. 2015, §4.2), others as ImageNet's.

The latter are those of Szegedy et al. 2015, §6. Uses random numbers 1, 2 and 100 to 139.
"""

from trainer.data.augment.boxes import random_boxes
from trainer.data.augment.image_size import image_size
from trainer.data.augment.random_ints import random_ints
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
    boxes, fits = random_boxes(seeds, 100, (height, width), area=AREA, attempts=ATTEMPTS,
                               ratio_of=lambda drawn: RATIO[0] * tf.pow(RATIO[1] / RATIO[0], drawn))
    boxes = tf.where(fits[:, None], boxes, [0.0, 0.0, float(height), float(width)])
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
