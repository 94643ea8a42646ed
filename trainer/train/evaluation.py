"""Evaluates a model on every example of a split once, whatever the batch and the replicas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.data.pipeline import evaluation_iterators
from trainer.distributed import collectives
from trainer.errors import DataError
from trainer.process.tf_import import tf
from trainer.quality.predictions import COLUMNS, Predictions, keeps_probabilities
from trainer.train.losses import cross_entropy
from trainer.train.steps_per_call import CallTimer

if TYPE_CHECKING:
    import keras

    from trainer.data.split import EvalBatch, Split
    from trainer.distributed.runtime import Runtime


class Evaluation(NamedTuple):
    """The result of a pass over a split.

    Args:
        loss: The mean cross-entropy, in nats.
        accuracy: The fraction of the examples whose class was predicted correctly.
        examples: Number of examples.
        class_accuracy: The accuracy on the examples of each class; None for a class without examples.
    """

    loss: float
    accuracy: float
    examples: int
    class_accuracy: tuple[float | None, ...]


class Evaluator:
    """Evaluates a model again and again; compiled at the first pass.

    Args:
        model: From pixels of 0 to 255 to logits.
        split: The examples.
        runtime: The devices.
        per_replica_batch_size: Examples per step and replica. The last batch is padded; padding has no weight.
        flips: Whether an image's probabilities are the mean of its own and of its mirror image's.
        translates: Whether an image's logits are a mean over itself, moved by a pixel, and the mirror images of these.

    Attributes:
        is_compiled: Whether the first pass has been compiled.
    """

    def __init__(self, model: keras.Model, split: Split, runtime: Runtime, *, per_replica_batch_size: int,
                 flips: bool = False, translates: bool = False) -> None:
        self._iterators, self._steps = evaluation_iterators(split, runtime,
                                                            per_replica_batch_size=per_replica_batch_size)
        self._split, self._runtime, self._timer = split, runtime, CallTimer()
        self._rows = per_replica_batch_size
        self._columns = answer_columns(split.size, model.output_shape[-1])
        self._function = _make_evaluate(model, runtime, self._iterators, per_replica_batch_size, self._columns,
                                        flips, translates)
        self._answers: list[np.ndarray] = []  # of the last pass: [steps, local replicas, rows, columns]
        self.is_compiled = False

    def run(self, should_stop: Callable[[], bool] | None = None) -> Evaluation | None:
        """Evaluates the split once, in calls of about a second.

        Args:
            should_stop: Called between the device calls, on all workers together; True ends the pass. This `Evaluator`
                must not be used again then.

        Returns:
            The `Evaluation`, or None if `should_stop` ended the pass.

        Raises:
            DataError: if none of the images can be read.
        """
        rows, done = [], 0
        self._answers = []
        while done < self._steps:
            # The chief's clock decides for all.
            num_steps = collectives.broadcast(self._runtime, min(self._timer.steps, self._steps - done))
            with self._timer.measure(num_steps):
                sums, answers = self._function(tf.constant(num_steps))
                rows.append(sums.numpy())
            self._answers.append(np.stack([part.numpy() for part in answers], 1))
            self.is_compiled, done = True, done + num_steps
            if should_stop and should_stop():
                return None
        losses, unreadable, *counts = np.concatenate(rows).T
        loss = math.fsum(losses)  # an exact sum: where the calls began and ended must not show in the last bits
        correct, examples = np.sum(counts, 1).reshape(2, -1).astype(int).tolist()
        count, unreadable = sum(examples), int(np.sum(unreadable))
        # A broken pipeline must not look like a slightly different accuracy.
        assert count + unreadable == self._split.size, (
            f"evaluated {count} of {self._split.size} examples, {unreadable} unreadable")
        if not count:
            raise DataError("none of the images to evaluate on can be read",
                            "python -m trainer doctor --data, with the run's --dataset and --data_dir, says what is "
                            "wrong with each")
        by_class = tuple(hits / size if size else None for hits, size in zip(correct, examples, strict=True))
        return Evaluation(loss / count, sum(correct) / count, count, by_class)

    def predictions(self, *, split: str, step: int, classes: Sequence[str],
                    probabilities: bool = True) -> Predictions:
        """What the model said in the last pass, gathered from all workers, which call this together.

        Args:
            split, step, classes: As in `Predictions`.
            probabilities: Whether to gather all probabilities, where they are kept; a hundred times as much, or more.
        """
        replicas, local = self._runtime.replicas, self._runtime.replica_ids
        columns = self._columns if probabilities else COLUMNS
        # A row for each example and each row of padding, in the order in which `evaluation_iterators` numbers them.
        answers = np.zeros([self._steps, replicas, self._rows, columns], np.float32)
        answers[:, local.start:local.stop] = np.concatenate([part[..., :columns] for part in self._answers])
        answers = collectives.sum_floats(self._runtime, answers.reshape(-1, columns))
        return Predictions.from_answers(answers, np.arange(len(answers)), self._split.labels, split=split, step=step,
                                        classes=classes)


def answer_columns(examples: int, classes: int) -> int:
    """The number of columns of `answers_of` for a split: without the probabilities where they would be too many."""
    return COLUMNS + (classes if keeps_probabilities(examples, classes) else 0)


def answers_of(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, columns: int) -> tf.Tensor:
    """What a model says of each example, as `Predictions.from_answers` takes it.

    Args:
        logits: [n, classes].
        labels: int32 [n].
        weights: float32 [n], 0 for rows that don't count.
        columns: As `answer_columns` returns it.

    Returns:
        float32 [n, columns].
    """
    logits = tf.cast(logits, tf.float32)
    log_p = tf.nn.log_softmax(logits)
    predicted = tf.cast(tf.argmax(logits, 1, tf.int32), tf.float32)
    own = tf.reduce_sum(tf.one_hot(labels, logits.shape[-1]) * logits, 1, keepdims=True)
    rank = tf.reduce_sum(tf.cast(logits > own, tf.float32), 1)
    narrow = tf.stack([tf.where(weights > 0, predicted, -1.0), tf.reduce_max(log_p, 1), rank], 1)
    return tf.concat([narrow, log_p], 1) if columns > COLUMNS else narrow


def _make_evaluate(model: keras.Model, runtime: Runtime, iterators: Sequence[Iterator[EvalBatch]], rows: int,
                   columns: int, flips: bool, translates: bool) -> Any:
    """Makes a function of a number of steps (int32 scalar tensor).

    It returns (float64 [steps, 2 + 2 · classes], for each local replica float32 [steps, rows, columns]), as `forward`
    has them: the one summed over all replicas, the others each replica's own.
    """
    classes = model.output_shape[-1]

    @tf.function(jit_compile=runtime.xla, autograph=False)
    def forward(batch: EvalBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """(float32 [2 + 2 · classes]: the sum of the losses, the number of unreadable examples, and for each class the
        number of correct predictions, then for each class the number of examples; what `answers_of` returns)."""
        pixels = tf.cast(batch.images, tf.float32)
        logits = model(pixels, training=False)
        if flips:
            logits = _log_mean_probabilities(logits, model(tf.reverse(pixels, [2]), training=False))
        if translates:
            logits = _mean_over_moved(logits, pixels, lambda images: model(images, training=False))
        correct = tf.cast(tf.equal(tf.argmax(logits, 1, tf.int32), batch.labels), tf.float32)
        loss = tf.reduce_sum(cross_entropy(batch.labels, logits) * batch.weights)
        counts = [tf.math.unsorted_segment_sum(summand, batch.labels, classes)
                  for summand in (correct * batch.weights, batch.weights)]
        return (tf.concat([tf.stack([loss, tf.reduce_sum(batch.unreadable)]), *counts], 0),
                answers_of(logits, batch.labels, batch.weights, columns))

    def replica_pass(steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        replica_id = tf.get_static_value(context.replica_id_in_sync_group) or 0

        def one(step: tf.Tensor, sums: tf.TensorArray,
                answers: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray, tf.TensorArray]:
            row, said = forward(next(iterators[replica_id % len(iterators)]))
            return step + 1, sums.write(step, tf.cast(row, tf.float64)), answers.write(step, said)

        arrays = (tf.TensorArray(tf.float64, steps, element_shape=[2 + 2 * classes]),
                  tf.TensorArray(tf.float32, steps, element_shape=[rows, columns]))
        _, sums, answers = tf.while_loop(lambda step, *_: step < steps, one, (tf.constant(0), *arrays))
        return context.all_reduce("SUM", sums.stack()) if runtime.replicas > 1 else sums.stack(), answers.stack()

    @tf.function(autograph=False)
    def evaluate(steps: tf.Tensor) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        sums, answers = runtime.strategy.run(replica_pass, args=(steps,))
        local = runtime.strategy.experimental_local_results
        return local(sums)[0], local(answers)

    return evaluate


def _mean_over_moved(logits: tf.Tensor, pixels: tf.Tensor, model: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """The mean of the logits of six forms of an image (Jordan 2024, arXiv:2404.00498, §3.5).

    Half of it is of the image and its mirror image, half of it of these moved by a pixel, down and right or up and
    left, onto their mirrored border.

    Args:
        logits: float32 [n, classes], of the images themselves.
        pixels: float32 [n, height, width, channels].
        model: From pixels to logits.

    Returns:
        float32 [n, classes].
    """
    height, width = pixels.shape[1:3]
    padded = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    moved = [padded[:, :height, :width], padded[:, 2:, 2:]]
    still = logits + model(tf.reverse(pixels, [2]))
    return still / 4 + tf.add_n([model(form) for image in moved for form in (image, tf.reverse(image, [2]))]) / 8


def _log_mean_probabilities(logits: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The logarithm of the mean of two softmaxes, which is a model's logits as good as any: float32 [n, classes]."""
    return tf.reduce_logsumexp(tf.nn.log_softmax(tf.stack([logits, other])), 0) - math.log(2)
