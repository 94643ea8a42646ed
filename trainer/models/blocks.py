"""The building blocks of the networks in zoo/.

All of them are layers that an .h5 file can hold. Residual blocks: He, Zhang, Ren & Sun 2015, arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from keras import KerasTensor, layers

_SMALL = 64  # images of up to this side get a stem that keeps their pixels


class _Block(Protocol):
    """A residual block of layers."""

    def __call__(self, x: KerasTensor, filters: int, stride: int, drop: float) -> KerasTensor: ...


def convolution(x: KerasTensor, filters: int) -> KerasTensor:
    """A 3×3 valid convolution with bias and ReLU."""
    return layers.Conv2D(filters, 3, activation="relu")(x)


def pooled_convolution(x: KerasTensor, filters: int) -> KerasTensor:
    """A 3×3 valid convolution with bias and ReLU, then a 2×2 max pool."""
    return layers.MaxPooling2D()(convolution(x, filters))


def residual_stages(x: KerasTensor, blocks: Sequence[int], block: _Block, drop_path: float) -> KerasTensor:
    """The stem, the stages, each with twice the filters of the one before, from 64 on, and the mean over the image.

    Args:
        x: The images.
        blocks: Number of blocks of each stage.
        block: Makes a block.
        drop_path: As in `drop_rates`.
    """
    x, rates = _stem(x), iter(drop_rates(sum(blocks), drop_path))
    for stage, count in enumerate(blocks):
        for index in range(count):
            x = block(x, 64 * 2**stage, stride=2 if index == 0 and stage > 0 else 1, drop=next(rates))
    return layers.GlobalAveragePooling2D()(x)


def _stem(x: KerasTensor) -> KerasTensor:
    """A 7×7 convolution and a max pool, each of stride 2; a 3×3 convolution alone for images of up to 64 pixels."""
    if min(x.shape[1:3]) <= _SMALL:
        return activated(_unbiased(x, 64, 3))
    x = activated(_unbiased(x, 64, 7, stride=2))
    return layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))  # a ReLU's output is never below 0


def drop_rates(blocks: int, rate: float) -> list[float]:
    """The rate at which each block's residual is dropped: that of block l of L is l / L of the last one's.

    Huang, Sun, Liu, Sedra & Weinberger 2016, "Deep networks with stochastic depth", arXiv:1603.09382, equation 4.

    Args:
        blocks: L.
        rate: The last block's, from 0 to below 1.
    """
    return [rate * number / blocks for number in range(1, blocks + 1)]


def basic_block(x: KerasTensor, filters: int, stride: int, drop: float) -> KerasTensor:
    """Two 3×3 convolutions beside a shortcut (figure 5, left)."""
    residual = activated(_unbiased(x, filters, 3, stride))
    residual = normalized(_unbiased(residual, filters, 3), scale=0)
    return joined(_projected(x, filters, stride), residual, drop)


def bottleneck(x: KerasTensor, filters: int, stride: int, drop: float) -> KerasTensor:
    """1×1, 3×3 and 1×1 convolutions beside a shortcut (figure 5, right); the 3×3 convolution has the stride."""
    residual = activated(_unbiased(x, filters, 1))
    residual = activated(_unbiased(residual, filters, 3, stride))
    residual = normalized(_unbiased(residual, 4 * filters, 1), scale=0)
    return joined(_projected(x, 4 * filters, stride), residual, drop)


def _projected(x: KerasTensor, filters: int, stride: int) -> KerasTensor:
    """The shortcut: `x` itself if the shapes agree, else a 1×1 convolution of it (option B)."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return normalized(_unbiased(x, filters, 1, stride))


def _unbiased(x: KerasTensor, filters: int, size: int, stride: int = 1) -> KerasTensor:
    """A convolution without bias, with the same padding on all sides, also for strides over 1."""
    if size > 1 and stride > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    return layers.Conv2D(filters, size, strides=stride, padding="same" if stride == 1 else "valid", use_bias=False,
                         kernel_initializer="he_normal")(x)


def normalized(x: KerasTensor, scale: int = 1) -> KerasTensor:
    """Batch norm; with scale 0 in a block's last batch norm, training begins with blocks that change nothing (Goyal et
    al. 2017, arXiv:1706.02677, §5.1).

    Args:
        x: Its input.
        scale: Its factors at the start of training, 0 or 1.
    """
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5,
                                     gamma_initializer="ones" if scale else "zeros")(x)


def activated(x: KerasTensor) -> KerasTensor:
    """Batch norm, then ReLU."""
    return layers.ReLU()(normalized(x))


def joined(shortcut: KerasTensor, residual: KerasTensor, drop: float = 0.0) -> KerasTensor:
    """The sum of a shortcut and a residual, then ReLU.

    Args:
        shortcut, residual: Of the same shape.
        drop: The rate at which training drops the residual of an example; one that is kept is divided by 1 - drop, so
            that evaluation needs no factor.
    """
    if drop:
        residual = layers.Dropout(drop, noise_shape=(None, 1, 1, 1))(residual)
    return layers.ReLU()(layers.Add()([shortcut, residual]))
