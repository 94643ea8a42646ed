"""Batch normalization with other moments: in one pass over the activations, or over all replicas.

Keras subtracts the mean before it sums squares: a second pass that waits for the first, and XLA can't merge the two.
In one pass, both sums are of the differences from one pixel of the batch, which needs no pass of its own and is as near
to the mean as any: E[(x - s)²] - E[x - s]², for the variance of sums of x itself loses its digits where the mean is
large (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance").
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


class BatchNormalizationOverReplicas(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with the moments of the rows of all replicas.

    Keras's own `synchronized=True` sums squares, whose difference loses its digits where the mean is large. Here each
    replica's mean and variance go to all (Chan, Golub & LeVeque 1983): the mean of the means, and the mean of the
    variances plus that of the means' squared distances from it. The gradient of the sum over replicas is one, too.
    """

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> Any:
        """(means, variances) of the channels, float32 [channels] each, the same on every replica."""
        context = tf.distribute.get_replica_context()
        number = tf.get_static_value(context.replica_id_in_sync_group)
        own = tf.stack(tf.nn.moments(inputs, self._reduction_axes or []))[None]
        rest = [tf.zeros([count, *own.shape[1:]]) for count in (number, context.num_replicas_in_sync - 1 - number)]
        means, variances = tf.unstack(context.all_reduce("SUM", tf.concat([rest[0], own, rest[1]], 0)), axis=1)
        mean = tf.reduce_mean(means, 0)
        return mean, tf.reduce_mean(variances + tf.square(means - mean), 0)


def normalize_in_one_pass(model: keras.Model) -> None:
    """Makes every batch normalization of a model, and of the models inside it, take one pass for its moments."""
    _change_class(model, BatchNormalizationInOnePass)


def normalize_over_replicas(model: keras.Model) -> bool:
    """Makes every batch normalization of a model, and of the models inside it, take moments over all replicas.

    Such a model can be called by replicas only, and not inside XLA, which takes no sum over replicas.

    Returns:
        Whether there is one.
    """
    return _change_class(model, BatchNormalizationOverReplicas)


def _change_class(model: keras.Model, kind: type[layers.BatchNormalization]) -> bool:
    """Changes the class of plain layers; they stay the same objects with the same configuration, as in pooling.py."""
    found = False
    for layer in model.layers:
        if type(layer) is layers.BatchNormalization:
            layer.__class__, found = kind, True
        elif hasattr(layer, "layers"):
            found |= _change_class(layer, kind)
    return found
