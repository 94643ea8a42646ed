"""Evaluates a model on every example of a split once, whatever the batch and the replicas."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.pipeline import evaluation_iterators
from trainer.pace import Pace
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

    Attributes:
        compiled: Whether it is.
    """

    def __init__(self, model, split, rows, runtime):
        self._iterators, self._steps = evaluation_iterators(split, rows, runtime)
        self._examples, self._runtime, self._pace = split.size, runtime, Pace()
        self._function = _make_evaluate(model, runtime, self._iterators)
        self.compiled = False

    def __call__(self, wanted_back=lambda: False):
        """Goes over the split once, in calls of about a second.

        Args:
            wanted_back: Asked between the calls, on all workers alike; True ends the pass. The next one
                must then be by another `Evaluator`.

        Returns:
            An `Evaluation`, or None if it was ended.
        """
        rows, done = [], 0
        while done < self._steps:
            # The chief's clock decides for all.
            (count,) = self._runtime.agree([min(self._pace.steps, self._steps - done) * self._runtime.is_chief])
            with self._pace.measure(count):
                rows.append(self._function(tf.constant(count)).numpy())
            self.compiled, done = True, done + count
            if wanted_back():
                return None
        # Exact sums: where the calls began and ended must not show in the last bits.
        loss, correct, weight = (math.fsum(column) for column in np.concatenate(rows).T)
        # A broken pipeline must not look like a slightly different accuracy.
        assert weight == self._examples, f"evaluated {weight} examples of {self._examples}"
        return Evaluation(loss / weight, correct / weight, int(weight))


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
        sums = tf.TensorArray(tf.float64, steps, element_shape=[3])
        for step in tf.range(steps):
            sums = sums.write(step, tf.cast(forward(next(iterators[number % len(iterators)])), tf.float64))
        return context.all_reduce("SUM", sums.stack()) if runtime.replicas > 1 else sums.stack()

    @tf.function
    def evaluate(steps):
        return runtime.strategy.experimental_local_results(runtime.strategy.run(replica_pass, args=(steps,)))[0]

    return evaluate
