"""Evaluates a model on every example of a split once, whatever the batch and the replicas."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.pipeline import evaluation_iterators
from trainer.distributed import collectives
from trainer.errors import DataError
from trainer.train.step import cross_entropy
from trainer.train.steps_per_call import Pace


class Evaluation(NamedTuple):
    """The mean cross-entropy in nats, the fraction that was right, how many examples that was over, and the
    fraction that was right of each class (None where a class has no examples)."""

    loss: float
    accuracy: float
    examples: int
    class_accuracy: tuple[float | None, ...]


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
        self._size, self._runtime, self._pace = split.size, runtime, Pace()
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
            count = collectives.broadcast(self._runtime, min(self._pace.steps, self._steps - done))
            with self._pace.measure(count):
                rows.append(self._function(tf.constant(count)).numpy())
            self.compiled, done = True, done + count
            if wanted_back():
                return None
        losses, missing, *counts = np.concatenate(rows).T
        loss = math.fsum(losses)  # an exact sum: where the calls began and ended must not show in the last bits
        right, examples = np.sum(counts, 1).reshape(2, -1).astype(int).tolist()
        count, missing = sum(examples), int(np.sum(missing))
        # A broken pipeline must not look like a slightly different accuracy.
        assert count + missing == self._size, f"evaluated {count} examples of {self._size}, {missing} were missing"
        if not count:
            raise DataError("none of the test split's pictures can be read", "look at what was said of them above")
        by_class = tuple(mine / all_ if all_ else None for mine, all_ in zip(right, examples, strict=True))
        return Evaluation(loss / count, sum(right) / count, count, by_class)


def _make_evaluate(model, runtime, iterators):
    classes = model.output_shape[-1]

    @tf.function(jit_compile=runtime.xla)
    def forward(batch):
        """float32 [2 + 2 · classes]: the sum of the losses, how many examples were missing, and for each class how
        many were right and how many were there."""
        logits = model(tf.cast(batch.images, tf.float32), training=False)
        right = tf.cast(tf.equal(tf.argmax(logits, 1, tf.int32), batch.labels), tf.float32)
        loss = tf.reduce_sum(cross_entropy(batch.labels, logits) * batch.weights)
        counts = [tf.math.unsorted_segment_sum(each, batch.labels, classes)
                  for each in (right * batch.weights, batch.weights)]
        return tf.concat([tf.stack([loss, tf.reduce_sum(batch.missing)]), *counts], 0)

    def replica_pass(steps):
        context = tf.distribute.get_replica_context()
        number = tf.get_static_value(context.replica_id_in_sync_group) or 0
        sums = tf.TensorArray(tf.float64, steps, element_shape=[2 + 2 * classes])
        for step in tf.range(steps):
            sums = sums.write(step, tf.cast(forward(next(iterators[number % len(iterators)])), tf.float64))
        return context.all_reduce("SUM", sums.stack()) if runtime.replicas > 1 else sums.stack()

    @tf.function
    def evaluate(steps):
        return runtime.strategy.experimental_local_results(runtime.strategy.run(replica_pass, args=(steps,)))[0]

    return evaluate
