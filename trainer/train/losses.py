"""Losses of examples, in nats."""

from trainer.process.tf_import import tf


def cross_entropy(labels, logits, smoothing=0.0):
    """Cross-entropy of each example against its label, part of the target spread over all classes.

    H = (1 - s) · (−log p[label]) + s · mean over classes of (−log p), as in Szegedy et al. 2016, §7.

    Args:
        labels: int32 [n].
        logits: float32 [n, classes].
        smoothing: s, from 0 to 1.

    Returns:
        float32 [n], in nats.
    """
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if smoothing:
        uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), -1)
        each = (1.0 - smoothing) * each + smoothing * uniform
    return each


def example_losses(target, logits, smoothing=0.0, class_weights=None):
    """The loss of each example; of mixed ones the mean over both labels, weighted as they were mixed.

    Args:
        target: A `mixup.Target` of n examples.
        logits: float32 [n, classes].
        smoothing: As of `cross_entropy`.
        class_weights: float32 [classes], by which losses are multiplied, or None.

    Returns:
        float32 [n], in nats.
    """
    def weighed(labels):
        each = cross_entropy(labels, logits, smoothing)
        return each if class_weights is None else each * tf.gather(class_weights, labels)

    if target.labels_b is target.labels:
        return weighed(target.labels)
    return target.lam * weighed(target.labels) + (1 - target.lam) * weighed(target.labels_b)
