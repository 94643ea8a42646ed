"""What the learning rate of each weight is multiplied by: biases, the last layer, and layers by their depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from trainer.errors import UsageError
from trainer.models.freezing import layers_of

if TYPE_CHECKING:
    from trainer.config import Config

_NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)


def rate_factors(model: keras.Model, config: Config) -> list[float]:
    """The factor of each weight's learning rate, and so of its decay; 1 without any of the flags.

    With `--layer_decay=d`, that of a weight k layers below the last is d^k, where a layer with a kernel counts and
    those without, such as batch norm, go with the one before (Bao et al. 2021, "BEiT", arXiv:2106.08254, appendix H).
    `--head_learning_rate` is that of the last layer. `--bias_learning_rate_scale` is a further factor of the biases of
    normalization (Jordan 2024, arXiv:2404.00498, section 3.4).

    Args:
        model: A functional model.
        config: The run's settings.

    Returns:
        A list of factors, in the order of `model.trainable_variables`.

    Raises:
        UsageError: if there is no such bias.
    """
    layers = [layer for layer in layers_of(model) if layer.weights]
    factors, depth = {}, 0
    biases = [id(layer.beta) for layer in layers if isinstance(layer, _NORMALIZATIONS) and layer.beta is not None]
    for number, layer in enumerate(reversed(layers)):
        rate = config.layer_decay ** depth
        if number == 0 and config.head_learning_rate is not None:
            rate = config.head_learning_rate / config.learning_rate
        for variable in layer.variables:
            factors.setdefault(id(variable), rate)
        depth += any(len(variable.shape) > 1 for variable in layer.variables)
    scale = config.bias_learning_rate_scale
    if scale != 1 and not biases:
        raise UsageError(f"--bias_learning_rate_scale={scale:g} is of normalization's biases; --model={config.model} "
                         "has none", "leave it out, or choose a model with batch norm")
    factors |= {bias: factors[bias] * scale for bias in biases}
    return [factors.get(id(variable), 1.0) for variable in model.trainable_variables]
