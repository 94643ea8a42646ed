"""Evaluates a model on every example of a split once, whatever the batch and the replicas."""

import math
from typing import NamedTuple

import numpy as np

from trainer.data.pipeline import evaluation_iterators
from trainer.distributed import collectives
from trainer.errors import DataError
from trainer.process.tf_import import tf
from trainer.train.losses import cross_entropy
from trainer.train.steps_per_call import CallTimer


class Evaluation(NamedTuple):
    """What a pass over a split found.

    Args:
        loss: The mean cross-entropy, in nats.
        accuracy: The fraction of the examples that were answered right.
        examples: How many examples that was over.
        class_accuracy: The same fraction for each class; None where a class has no examples.
    """

    loss: float
    accuracy: float
    examples: int
    class_accuracy: tuple[float | None, ...]


class Evaluator:
    """Evaluates a model again and again; compiled at the first pass.

    Args:
        model: The `keras.Model`.
        split: The `Split`.
        runtime: The `Runtime`.
        per_replica_batch_size: Examples per step and replica. The last batch is padded; padding has no weight.

    Attributes:
        is_compiled: Whether it is.
    """

    def __init__(self, model, split, runtime, *, per_replica_batch_size):
        self._iterators, self._steps = evaluation_iterators(split, runtime,
                                                            per_replica_batch_size=per_replica_batch_size)
        self._size, self._runtime, self._timer = split.size, runtime, CallTimer()
        self._function = _make_evaluate(model, runtime, self._iterators)
        self.is_compiled = False

    def run(self, should_stop=None):
        """Goes over the split once, in calls of about a second.

        Args:
            should_stop: Called between the device calls, on all workers together; True ends the pass. The next one
                must then be by another `Evaluator`.

        Returns:
            An `Evaluation`, or None if it was ended.
        """
        rows, done = [], 0
        while done < self._steps:
            # The chief's clock decides for all.
            num_steps = collectives.broadcast(self._runtime, min(self._timer.steps, self._steps - done))
            with self._timer.measure(num_steps):
                rows.append(self._function(tf.constant(num_steps)).numpy())
            self.is_compiled, done = True, done + num_steps
            if should_stop and should_stop():
                return None
        losses, unreadable, *counts = np.concatenate(rows).T
        loss = math.fsum(losses)  # an exact sum: where the calls began and ended must not show in the last bits
        correct, examples = np.sum(counts, 1).reshape(2, -1).astype(int).tolist()
        count, unreadable = sum(examples), int(np.sum(unreadable))
        # A broken pipeline must not look like a slightly different accuracy.
        assert count + unreadable == self._size, f"evaluated {count} of {self._size} examples, {unreadable} unreadable"
        if not count:
            raise DataError("none of the test split's images can be read", "check the warnings above")
        by_class = tuple(right / all_ if all_ else None for right, all_ in zip(correct, examples, strict=True))
        return Evaluation(loss / count, sum(correct) / count, count, by_class)


def _make_evaluate(model, runtime, iterators):
    classes = model.output_shape[-1]

    @tf.function(jit_compile=runtime.xla)
    def forward(batch):
        """float32 [2 + 2 · classes]: the sum of the losses, how many examples were unreadable, and for each class how
        many were answered right and how many there were."""
        logits = model(tf.cast(batch.images, tf.float32), training=False)
        correct = tf.cast(tf.equal(tf.argmax(logits, 1, tf.int32), batch.labels), tf.float32)
        loss = tf.reduce_sum(cross_entropy(batch.labels, logits) * batch.weights)
        counts = [tf.math.unsorted_segment_sum(each, batch.labels, classes)
                  for each in (correct * batch.weights, batch.weights)]
        return tf.concat([tf.stack([loss, tf.reduce_sum(batch.unreadable)]), *counts], 0)

    def replica_pass(steps):
        context = tf.distribute.get_replica_context()
        replica_id = tf.get_static_value(context.replica_id_in_sync_group) or 0
        sums = tf.TensorArray(tf.float64, steps, element_shape=[2 + 2 * classes])
        for step in tf.range(steps):
            sums = sums.write(step, tf.cast(forward(next(iterators[replica_id % len(iterators)])), tf.float64))
        return context.all_reduce("SUM", sums.stack()) if runtime.replicas > 1 else sums.stack()

    @tf.function
    def evaluate(steps):
        return runtime.strategy.experimental_local_results(runtime.strategy.run(replica_pass, args=(steps,)))[0]

    return evaluate
