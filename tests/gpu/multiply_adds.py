"""How much arithmetic a model's forward pass is."""

import math

from keras import layers


def multiply_adds(model):
    """The multiply-adds of convolutions and dense layers for one image.

    Args:
        model: A functional `keras.Model`; models inside it count.

    Returns:
        Their number; layers of other kinds count as nothing.
    """
    total = 0
    for layer in model.layers:
        if hasattr(layer, "layers"):
            total += multiply_adds(layer)
        elif isinstance(layer, layers.DepthwiseConv2D):
            total += math.prod(layer.output.shape[1:]) * math.prod(layer.kernel_size)
        elif isinstance(layer, layers.Conv2D):
            total += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    return total
