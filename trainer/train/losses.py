"""Losses of examples, in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.data.augment.apply import Target


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Cross-entropy of each example against its label; a part of the target is spread evenly over all classes.

    H = (1 - s) · (−log p[label]) + s · mean over classes of (−log p), as in Szegedy et al. 2016, §7.

    Args:
        labels: int32 [n].
        logits: float32 [n, classes].
        smoothing: s, from 0 to 1.

    Returns:
        float32 [n], in nats.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if smoothing:
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), -1)
        losses = (1.0 - smoothing) * losses + smoothing * uniform
    return losses


def example_losses(target: Target, logits: tf.Tensor, smoothing: float = 0.0,
                   class_weights: np.ndarray | None = None) -> tf.Tensor:
    """The loss of each example; for mixed examples the mean over both labels, weighted as the images were mixed.

    Args:
        target: The labels of n examples.
        logits: float32 [n, classes].
        smoothing: As in `cross_entropy`.
        class_weights: float32 [classes], by which losses are multiplied, or None.

    Returns:
        float32 [n], in nats.
    """
    def weighted(labels: tf.Tensor) -> tf.Tensor:
        losses = cross_entropy(labels, logits, smoothing)
        return losses if class_weights is None else losses * tf.gather(class_weights, labels)

    if target.labels_b is target.labels:
        return weighted(target.labels)
    return target.lam * weighted(target.labels) + (1 - target.lam) * weighted(target.labels_b)
