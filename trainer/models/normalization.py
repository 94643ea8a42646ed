"""Batch normalization whose moments take one pass over the activations.

Keras subtracts the mean before it sums squares: a second pass that waits for the first, and XLA can't merge the two.
Here both sums are of the differences from one pixel of the batch, which needs no pass of its own and is as near to the
mean as any: E[(x - s)²] - E[x - s]², for the variance of sums of x itself loses its digits where the mean is large
(Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance").
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from trainer.process.tf_import import tf


class BatchNormalizationInOnePass(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with the same variables, and the same values up to rounding."""

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> Any:
        """(means, variances) of the channels, float32 [channels] each; `inputs` are float32."""
        if mask is not None or self.synchronized:
            return super()._moments(inputs, mask)
        return moments(inputs, self._reduction_axes or [])


def moments(x: tf.Tensor, axes: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """The means and variances over some axes.

    Args:
        x: Floats, without an empty axis.
        axes: The axes.

    Returns:
        (means, variances), both without these axes.
    """
    first = [slice(0, 1) if axis in axes else slice(None) for axis in range(len(x.shape))]
    shift = tf.stop_gradient(x[tuple(first)])  # pyright: ignore[reportArgumentType]  TensorFlow takes slices in a tuple
    differences = x - shift
    mean = tf.reduce_mean(differences, axes)
    variance = tf.reduce_mean(tf.square(differences), axes) - tf.square(mean)
    return mean + tf.squeeze(shift, axes), tf.nn.relu(variance)  # no rounding makes a variance negative


def normalize_in_one_pass(model: keras.Model) -> None:
    """Makes every batch normalization of a model, and of the models inside it, take one pass for its moments.

    The layers stay the same objects with the same configuration, as in pooling.py.
    """
    for layer in model.layers:
        if type(layer) is layers.BatchNormalization:
            layer.__class__ = BatchNormalizationInOnePass
        elif hasattr(layer, "layers"):
            normalize_in_one_pass(layer)
