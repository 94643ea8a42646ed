"""Losses of examples, in nats."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.process.tf_import import tf
from trainer.process.user_code import call_for_tensor, function_of

if TYPE_CHECKING:
    from trainer.data.augment.apply import Target

# A function of labels (int32 [n]), logits (float32 [n, classes]) and smoothing (0 to 1) to float32 [n].
LossOfLabels = Callable[["tf.Tensor", "tf.Tensor", float], "tf.Tensor"]

_SHOWN = 0.2  # the share of a mixed image from which on it shows a class


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


def focal(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Focal loss of each example, in which examples count the less, the surer they are.

    F = sum over classes of target · (1 - p)² · (−log p): equation 4 of Lin et al. 2017 (arXiv:1708.02002) with γ = 2,
    of softmax's p and the target of `cross_entropy`.

    Args:
        labels, logits, smoothing: As in `cross_entropy`.

    Returns:
        float32 [n], in nats.
    """
    log_p = tf.nn.log_softmax(logits)
    each = tf.square(tf.math.expm1(log_p)) * -log_p
    of_label = tf.reduce_sum(tf.one_hot(labels, logits.shape[-1]) * each, -1)
    return (1.0 - smoothing) * of_label + smoothing * tf.reduce_mean(each, -1)


def binary_cross_entropy(target: Target, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """The mean over classes of the binary cross-entropy of the class's sigmoid, as in Wightman et al. 2021.

    "ResNet strikes back" (arXiv:2110.00476), §3: a mixed image shows every class that has a share of over 0.2 in it.

    Args:
        target: The labels of n examples.
        logits: float32 [n, classes].
        smoothing: s, from 0 to 1: targets are s / classes, and 1 - s + s / classes for the classes of an image.

    Returns:
        float32 [n], in nats.
    """
    classes: int = logits.shape[-1]  # pyright: ignore[reportAssignmentType]  known beforehand
    lam = target.lam[:, None]
    shares = tf.one_hot(target.labels, classes) * lam + tf.one_hot(target.labels_b, classes) * (1 - lam)
    shown = tf.cast(shares > _SHOWN, tf.float32)
    targets = shown * (1.0 - smoothing) + smoothing / classes
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), -1)


def loss_function(name: str) -> LossOfLabels:
    """The loss of examples that have one label each.

    Args:
        name: `--loss` but bce.

    Returns:
        A function as `cross_entropy`.

    Raises:
        UsageError: if it is a function of the user's that can't be imported, or takes something else.
    """
    if ":" not in name:
        return focal if name == "focal" else cross_entropy
    function = function_of("loss", name, ("labels", "logits"))

    def own(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
        return call_for_tensor("loss", name, function, (labels, logits), tf.TensorSpec(labels.shape, tf.float32),
                               "a loss for each example is needed")

    return own


def example_losses(target: Target, logits: tf.Tensor, smoothing: float = 0.0,
                   class_weights: np.ndarray | None = None, loss: LossOfLabels | str = "cross_entropy") -> tf.Tensor:
    """The loss of each example; for mixed examples the mean over both labels, weighted as the images were mixed.

    Args:
        target: The labels of n examples.
        logits: float32 [n, classes].
        smoothing: As in `cross_entropy`.
        class_weights: float32 [classes], by which losses are multiplied, or None.
        loss: `--loss`, or what `loss_function` made of it. That of bce is one for both labels, times the mean of their
            weights.

    Returns:
        float32 [n], in nats.
    """
    of_both = binary_cross_entropy(target, logits, smoothing) if loss == "bce" else None
    of_labels = loss_function(loss) if isinstance(loss, str) and of_both is None else loss

    def weighted(labels: tf.Tensor) -> tf.Tensor:
        losses: Any = of_labels(labels, logits, smoothing) if callable(of_labels) else of_both
        return losses if class_weights is None else losses * tf.gather(class_weights, labels)

    if target.labels_b is target.labels:
        return weighted(target.labels)
    return target.lam * weighted(target.labels) + (1 - target.lam) * weighted(target.labels_b)
