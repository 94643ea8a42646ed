"""Max pooling whose gradient is found by comparing, not by a scatter.

XLA makes of a max pool's gradient a scatter with atomic additions: slow on GPUs, in no fixed order where windows
overlap, and refused under op determinism. Here each offset in the window is compared with the maximum, the first in
row-major order that equals it gets the gradient, as TensorFlow's own kernel has it, and the offsets' parts are put
together by padding, adding and interleaving.
"""

from keras import layers

from trainer.process.tf_import import tf


class MaxPooling2DByComparison(layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` with the same values and the gradient of this module."""

    def call(self, inputs):
        """See the class."""
        return max_pool(inputs, self.pool_size, self.strides, self.padding)


def pool_by_comparison(model):
    """Lets every max pool of a model find its gradient by comparing.

    The layers stay the same objects with the same configuration: a graph of layers can't be given others.

    Args:
        model: A `keras.Model`; models inside it are gone through, too.
    """
    for layer in model.layers:
        if type(layer) is layers.MaxPooling2D and layer.data_format == "channels_last":
            layer.__class__ = MaxPooling2DByComparison
        elif hasattr(layer, "layers"):
            pool_by_comparison(layer)


def max_pool(images, size, strides, padding):
    """The maximum in each window.

    Args:
        images: [n, height, width, channels]; all but n are known.
        size, strides: (rows, columns) of a window, and from one to the next.
        padding: valid or same.

    Returns:
        [n, rows, columns, channels].
    """
    @tf.custom_gradient
    def pooled(images):
        maxima = tf.nn.max_pool2d(images, size, strides, padding.upper())
        return maxima, lambda gradient: _gradient(images, maxima, gradient, size, strides, padding)

    return pooled(images)


def _gradient(images, maxima, gradient, size, strides, padding):
    """The gradient of the images: [n, height, width, channels]."""
    (_, height, width, channels), (_, rows, columns, _) = images.shape, maxima.shape
    # The grid of windows, in pixels: strides × strides cells, of which a window's offset (i, j) lies i // stride
    # cells down and i % stride pixels into its cell.
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
            here = padded[:, cell_i:cell_i + rows, phase_i, cell_j:cell_j + columns, phase_j]
            first = tf.equal(here, maxima) & ~taken
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
    # Where windows leave the last pixels out, their gradient is 0.
    return tf.pad(whole, [[0, 0], [0, height - whole.shape[1]], [0, width - whole.shape[2]], [0, 0]])


def _padding(length, windows, side, step):
    """How many pixels "same" puts before an image of a length."""
    return max(0, (windows - 1) * step + side - length) // 2
