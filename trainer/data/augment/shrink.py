"""Images made smaller inside the step, for `--train_sizes`."""

from __future__ import annotations

import numpy as np

from trainer.process.tf_import import tf


def shrink(images: tf.Tensor, side: int) -> tf.Tensor:
    """Makes images smaller: a pixel is a mean of those under it, weighted by a triangle as wide as two of its own.

    That is what `tf.image.resize(…, antialias=True)` and Pillow's BILINEAR do. It is two products with constant
    matrices here, for TensorFlow's op runs on CPUs alone and XLA doesn't compile it.

    Args:
        images: float32 [n, height, width, channels].
        side: Height and width of the result in pixels, at most those of the images.

    Returns:
        float32 [n, side, side, channels].
    """
    rows, columns = (tf.constant(_weights(int(images.shape[axis] or 0), side)) for axis in (1, 2))
    return tf.einsum("sh,nhwc,tw->nstc", rows, images, columns)


def _weights(length: int, side: int) -> np.ndarray:
    """float32 [side, length]: how much of each pixel of a line goes into each pixel of a shorter one; rows sum to 1."""
    scale = length / side
    centers = (np.arange(side) + 0.5) * scale
    distances = np.abs(np.arange(length) + 0.5 - centers[:, None]) / scale
    triangle = np.maximum(0.0, 1.0 - distances)
    return (triangle / triangle.sum(1, keepdims=True)).astype(np.float32)
