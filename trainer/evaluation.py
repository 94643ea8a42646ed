"""Evaluates a model on every example of a split once, whatever the batch and the replicas."""

from typing import NamedTuple

import tensorflow as tf

from trainer.data.pipeline import evaluation_iterators
from trainer.step import cross_entropy


class Evaluation(NamedTuple):
    """The mean cross-entropy in nats, the fraction that was right, and how many examples that was over."""

    loss: float
    accuracy: float
    examples: int


class Evaluator:
    """Evaluates a model again and again; compiled at the first call.

    Args:
        model: The `keras.Model`.
        split: The `Split`.
        rows: Examples per step and replica. The last batch is padded and the padding weighs nothing.
        runtime: The `Runtime`.
    """

    def __init__(self, model, split, rows, runtime):
        self._iterators, self._steps = evaluation_iterators(split, rows, runtime)
        self._examples = split.size
        self._function = _make_evaluate(model, runtime, self._iterators)

    def __call__(self):
        """Goes over the split once.

        Returns:
            An `Evaluation`.
        """
        loss, correct, weight = self._function(tf.constant(self._steps)).numpy()
        # A broken pipeline must not look like a slightly different accuracy.
        assert int(weight) == self._examples, f"evaluated {weight} examples of {self._examples}"
        return Evaluation(float(loss / weight), float(correct / weight), int(weight))


def _make_evaluate(model, runtime, iterators):
    @tf.function(jit_compile=runtime.xla)
    def forward(batch):
        logits = model(tf.cast(batch.images, tf.float32), training=False)
        right = tf.cast(tf.equal(tf.argmax(logits, 1, tf.int32), batch.labels), tf.float32)
        rows = tf.stack([cross_entropy(batch.labels, logits), right, tf.ones_like(right)])
        return tf.reduce_sum(rows * batch.weights, 1)

    def replica_pass(steps):
        context = tf.distribute.get_replica_context()
        number = tf.get_static_value(context.replica_id_in_sync_group) or 0
        total = tf.zeros([3], tf.float64)
        for _ in tf.range(steps):
            total += tf.cast(forward(next(iterators[number % len(iterators)])), tf.float64)
        return context.all_reduce("SUM", total) if runtime.replicas > 1 else total

    @tf.function
    def evaluate(steps):
        return runtime.strategy.experimental_local_results(runtime.strategy.run(replica_pass, args=(steps,)))[0]

    return evaluate
