"""How much arithmetic a model's forward pass is."""

from __future__ import annotations

import math
from typing import Any

from keras import layers


def multiply_adds(model: Any) -> int:
    """The multiply-adds of convolutions and dense layers for one image.

    Args:
        model: A functional `keras.Model`; models inside it count.

    Returns:
        Their number; layers of other kinds count as nothing.
    """
    return sum(_of_layer(layer) for layer in model.layers)


def _of_layer(layer: Any) -> int:
    if hasattr(layer, "layers"):
        return multiply_adds(layer)
    output, kernel = layer.output, getattr(layer, "kernel", None)
    if isinstance(layer, layers.DepthwiseConv2D):
        return _product(output.shape[1:]) * _product(layer.kernel_size)
    if kernel is not None and isinstance(layer, layers.Conv2D):
        return _product(output.shape[1:3]) * _product(kernel.shape)
    if kernel is not None and isinstance(layer, layers.Dense):
        return _product(output.shape[1:-1]) * _product(kernel.shape)
    return 0


def _product(shape: Any) -> int:
    return math.prod(shape)
