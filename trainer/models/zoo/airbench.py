"""The network of the CIFAR-10 speedrun: Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", arXiv:2404.00498, section 3.

A 2×2 convolution that whitens patches, then three blocks of 64, 256 and 256 filters: convolution, pool, batch norm,
GELU, convolution, batch norm, GELU; 1,971,352 parameters that train on CIFAR-10, and the 288 of the whitening, which
don't. The last pool is over all of the image, which is 3 × 3 pixels there for images of 32; a ninth of it makes the
logits, without a bias.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers

FROZEN = ("whiten/kernel",)  # paths; its bias trains
WIDTH = 64  # filters of the first block; the others have four times as many
_SIDE = 2  # of the patches, in pixels
_EPSILON = 5e-4  # beside the variances, of scaled pixels (section 3.2)
# CIFAR-10's colours, from 0 to 1: the mean and the standard deviation of its training images.
_MEAN, _DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_OTHER_MEAN, _OTHER_DEVIATION = 0.5, 0.25  # of images that aren't in three colours
_AT_ONCE = 2**21  # numbers of patches in memory


def features(x: KerasTensor) -> KerasTensor:
    """The whitening, the blocks, and a ninth of the largest value of each channel."""
    channels = x.shape[-1]
    mean, deviation = _colours(channels)
    x = layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist(), name="standardize")(x)
    whiten = layers.Conv2D(2 * channels * _SIDE**2, _SIDE, kernel_initializer=_as_torch(), name="whiten")
    x = layers.Activation("gelu")(whiten(x))
    for filters in (WIDTH, 4 * WIDTH, 4 * WIDTH):
        x = layers.MaxPooling2D(2)(_convolution(x, filters))
        x = _convolution(_activated(x), filters)
        x = _activated(x)
    return layers.Rescaling(1 / 9, name="ninth")(layers.GlobalMaxPooling2D()(x))


def logits_settings() -> dict[str, Any]:
    """What the layer of the logits has otherwise than Keras: no bias, and PyTorch's first weights."""
    return {"use_bias": False, "kernel_initializer": _as_torch()}


def weights_of_data(images: np.ndarray) -> dict[str, np.ndarray]:
    """The weights that follow from training images: those of the whitening (section 3.2).

    Args:
        images: uint8 [n, height, width, channels].

    Returns:
        Path of a variable to its value: of whiten/kernel, float32 [2, 2, channels, 8 · channels].
    """
    mean, deviation = (np.tile(part, _SIDE**2) for part in _colours(images.shape[-1]))
    count, total, products = 0, 0.0, 0.0
    step = max(1, _AT_ONCE // (images[0].size * _SIDE**2))
    for begin in range(0, len(images), step):
        patches = _patches(images[begin:begin + step])
        # Of whole numbers under 2**53: the sums are exact, in whatever order they are taken.
        count, total, products = count + len(patches), total + patches.sum(0), products + patches.T @ patches
    first, second = total / count / 255, products / count / 255**2
    second = (second - np.outer(mean, first) - np.outer(first, mean) + np.outer(mean, mean)) / np.outer(deviation,
                                                                                                     deviation)
    variances, vectors = np.linalg.eigh(second)  # the smallest first, a vector in each column
    largest = vectors[np.abs(vectors).argmax(0), np.arange(len(vectors))]
    vectors = (vectors * np.sign(largest) / np.sqrt(variances + _EPSILON))[:, ::-1]
    kernel = np.concatenate([vectors, -vectors], 1).reshape(_SIDE, _SIDE, images.shape[-1], -1)
    return {"whiten/kernel": kernel.astype(np.float32)}


def _patches(images: np.ndarray) -> np.ndarray:
    """All patches of images, one beside the other in rows of [row, column, channel]: float64 [n, 4 · channels]."""
    height, width = (side - _SIDE + 1 for side in images.shape[1:3])
    parts = [images[:, row:row + height, column:column + width] for row in range(_SIDE) for column in range(_SIDE)]
    return np.concatenate(parts, -1).reshape(-1, _SIDE**2 * images.shape[-1]).astype(np.float64)


def _colours(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) of each channel, of pixels from 0 to 1: float64 [channels] each."""
    if channels == len(_MEAN):
        return np.array(_MEAN), np.array(_DEVIATION)
    return np.full(channels, _OTHER_MEAN), np.full(channels, _OTHER_DEVIATION)


def _as_torch() -> Any:
    """PyTorch's own initializer: uniform between plus and minus the root of 1 / inputs. A new one draws anew."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _convolution(x: KerasTensor, filters: int) -> KerasTensor:
    """A 3×3 convolution whose first filters pass their channel on (section 3.3)."""
    convolution = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer=_as_torch())
    y = convolution(x)
    # Set here: an initializer of one's own would be named in the exports, which load without this package.
    variable: Any = convolution.kernel
    kernel = np.array(keras.ops.convert_to_numpy(variable))
    passed = min(kernel.shape[2:])
    kernel[..., :passed] = 0
    kernel[1, 1, np.arange(passed), np.arange(passed)] = 1
    variable.assign(kernel)
    return y


def _activated(x: KerasTensor) -> KerasTensor:
    """Batch norm without factors, whose averages forget soon, then GELU."""
    return layers.Activation("gelu")(layers.BatchNormalization(momentum=0.6, epsilon=1e-12, scale=False)(x))
