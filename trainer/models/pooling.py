"""Max pooling whose gradient is computed by comparing, not by a scatter.

XLA compiles a max pool's gradient to a scatter with atomic additions: slow on GPUs, in no fixed order where windows
overlap, and refused under op determinism. Here each offset in the window is compared with the maximum, and the first
in row-major order that equals the maximum gets the gradient, as in TensorFlow's own kernel. The gradients of the
offsets are combined by padding, adding and interleaving.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from trainer.process.tf_import import tf


class MaxPooling2DByComparison(layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` with the same values and a gradient that is computed by comparing."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The maximum in each window.

        Args:
            inputs: [n, height, width, channels].

        Returns:
            [n, rows, columns, channels].
        """
        return max_pool(inputs, self.pool_size, self.strides, self.padding)


def pool_by_comparison(model: keras.Model) -> None:
    """Makes every max pool of a model, and of the models inside it, compute its gradient by comparing.

    The layers stay the same objects with the same configuration: the layers of a graph can't be replaced.
    """
    for layer in model.layers:
        if type(layer) is layers.MaxPooling2D and layer.data_format == "channels_last":
            layer.__class__ = MaxPooling2DByComparison
        elif hasattr(layer, "layers"):
            pool_by_comparison(layer)


def max_pool(images: tf.Tensor, size: Sequence[int], strides: Sequence[int], padding: str) -> tf.Tensor:
    """The maximum in each window.

    Args:
        images: [n, height, width, channels]; all sizes but n are known.
        size: (rows, columns) of a window.
        strides: (rows, columns) from one window to the next.
        padding: valid or same.

    Returns:
        [n, rows, columns, channels].
    """
    @tf.custom_gradient
    def pooled(images: tf.Tensor) -> Any:
        maxima = tf.nn.max_pool2d(images, size, strides, padding.upper())

        def gradient_of_images(gradient: tf.Tensor) -> tf.Tensor:
            return _gradient(images, maxima, gradient, size, strides, padding)

        return maxima, gradient_of_images

    return pooled(images)


def _gradient(images: Any, maxima: Any, gradient: tf.Tensor, size: Sequence[int], strides: Sequence[int],
              padding: str) -> tf.Tensor:
    """The gradient of the images: [n, height, width, channels]."""
    (_, height, width, channels), (_, rows, columns, _) = images.shape, maxima.shape
    # The grid of windows has cells of strides[0] × strides[1] pixels. A window's offset (i, j) is i // strides[0] cells
    # down and j // strides[1] cells across, and at (i % strides[0], j % strides[1]) inside that cell.
    down, across = (count + (side - 1) // step
                    for count, side, step in zip((rows, columns), size, strides, strict=True))
    before = [_padding(*sides) if padding == "same" else 0 for sides in
              zip((height, width), (rows, columns), size, strides, strict=True)]
    cells = [n * step for n, step in zip((down, across), strides, strict=True)]
    edges = [[before[0], max(0, cells[0] - before[0] - height)], [before[1], max(0, cells[1] - before[1] - width)]]
    padded = tf.pad(images, [[0, 0], *edges, [0, 0]], constant_values=images.dtype.min)[:, :cells[0], :cells[1]]
    padded = tf.reshape(padded, [-1, down, strides[0], across, strides[1], channels])

    parts = {}
    taken = tf.zeros_like(maxima, tf.bool)
    for i in range(size[0]):
        for j in range(size[1]):
            (cell_i, phase_i), (cell_j, phase_j) = divmod(i, strides[0]), divmod(j, strides[1])
            values = padded[:, cell_i:cell_i + rows, phase_i, cell_j:cell_j + columns, phase_j]
            first = tf.equal(values, maxima) & ~taken
            taken |= first
            part = tf.pad(tf.where(first, gradient, tf.zeros_like(gradient)),
                          [[0, 0], [cell_i, down - rows - cell_i], [cell_j, across - columns - cell_j], [0, 0]])
            phase = phase_i, phase_j
            parts[phase] = parts[phase] + part if phase in parts else part
    zeros = tf.zeros_like(next(iter(parts.values())))
    whole = tf.stack([tf.stack([parts.get((i, j), zeros) for j in range(strides[1])], 3)
                      for i in range(strides[0])], 2)
    whole = tf.reshape(whole, [-1, *cells, channels])
    whole = whole[:, before[0]:before[0] + height, before[1]:before[1] + width]
    # The last pixels may be in no window: their gradient is 0.
    return tf.pad(whole, [[0, 0], [0, height - whole.shape[1]], [0, width - whole.shape[2]], [0, 0]])


def _padding(length: int, windows: int, side: int, step: int) -> int:
    """Number of pixels that "same" adds before an image of `length` pixels."""
    return max(0, (windows - 1) * step + side - length) // 2
