"""Part 1 of a step: forward and backward on a replica's part of the global batch.

The loss of a replica is the sum over its own examples divided by the *global* batch size, so the sum over replicas is
the gradient of the global mean.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.data.augment.apply import augment_batch
from trainer.data.augment.shrink import shrink
from trainer.data.positions import batch_at
from trainer.data.split import Batch
from trainer.process.tf_import import tf
from trainer.train.losses import example_losses, loss_function
from trainer.train.step.example_draws import drawn_by_example

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from trainer.data.augment.apply import Target
    from trainer.data.pipeline import Feed
    from trainer.plan import Job
    from trainer.train.state import TrainState

_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd")


class Summands(NamedTuple):
    """What a replica adds to the sums over all replicas.

    Args:
        gradients: For each weight, of the replica's part of the global loss, times the loss scale.
        statistics: For each statistic, float32: the replica's, divided by the number of replicas.
        sums: float32 [3]: loss, number of correct predictions, number of examples that could be read.
    """

    gradients: Sequence[tf.Tensor]
    statistics: Sequence[tf.Tensor]
    sums: tf.Tensor


class Gradients:
    """Computes a replica's summands. Its methods are for use inside a traced function.

    Args:
        job: What the run trains.
        state: The state; its statistics are written by the forward pass.
        feed: Where batches come from.
        side: Height and width in pixels to which images are made smaller; None: they stay as they are.

    Attributes:
        statistics: The model's buffers that the forward pass writes, such as batch norm's moving averages; known once
            `compute` has been traced.
    """

    def __init__(self, job: Job, state: TrainState, feed: Feed, side: int | None = None) -> None:
        self._job, self._state, self._feed, self._side = job, state, feed, side if side in state.sized else None
        self._model = state.sized[self._side] if self._side else state.model
        self.statistics: list[keras.Variable] = []
        self._written: list[bool] = []  # of each of the state's buffers
        self._loss = "bce" if job.config.loss == "bce" else loss_function(job.config.loss)
        # Where the model can't be part of an XLA program, this still is one: only XLA gathers uint8 on a GPU.
        self._seen = (tf.function(self._augmented, jit_compile=True, autograph=False)
                      if state.crosses_replicas and job.runtime.xla else self._augmented)

    def compute(self, batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                loss_scale: tf.Tensor) -> tuple[Summands, list[tf.Tensor]]:
        """Does a forward and a backward pass, or the passes in which a step goes.

        Summed over the passes, losses and gradients are those of one pass over all rows, up to rounding. Batch norm
        takes the moments of each pass, and its moving averages move once in each.

        Args:
            batch: The replica's examples; where images are resident, int64 [2, rows], as `batch_at` takes them.
            resident: The (images, labels) on the replica's device, or None if the batch holds its own.
            loss_scale: The factor of the loss in the backward pass.

        Returns:
            (the `Summands`, the statistics before the passes).
        """
        batch = batch if isinstance(batch, Batch) else batch_at(batch)
        buffers = self._state.buffers
        before = [tf.convert_to_tensor(variable) for variable in buffers]
        if self._job.plan.passes == 1:
            gradients, sums = self._pass(batch, resident, loss_scale)
        else:
            gradients, sums = self._passes(batch, resident, loss_scale)
        self.statistics[:] = itertools.compress(buffers, self._written)
        averaged = [statistic / self._job.plan.replicas for statistic in as_float32(self.statistics)]
        return Summands(gradients, averaged, sums), list(itertools.compress(before, self._written))

    def _passes(self, batch: Batch, resident: tuple[tf.Tensor, tf.Tensor] | None,
                loss_scale: tf.Tensor) -> tuple[Sequence[tf.Tensor], tf.Tensor]:
        """What `_pass` returns, summed over the passes of a step: a loop in the graph, which holds one pass."""
        passes = self._job.plan.passes
        parts = [None if rows is None else tf.reshape(rows, [passes, -1, *rows.shape[1:]]) for rows in batch]

        def add(index: tf.Tensor, gradients: Sequence[tf.Tensor], sums: tf.Tensor) -> Any:
            part = Batch(*(None if rows is None else rows[index] for rows in parts))  # pyright: ignore[reportArgumentType]
            more, counts = self._pass(part, resident, loss_scale)
            return index + 1, [old + new for old, new in zip(gradients, more, strict=True)], sums + counts

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in self._state.model.trainable_variables]
        if self._state.crosses_replicas:  # which nothing inside a loop may
            total: Any = zeros, tf.zeros([3])
            for index in range(passes):
                total = add(tf.constant(index), *total)[1:]
            return total
        return tf.while_loop(lambda index, *_: index < passes, add, (tf.constant(0), zeros, tf.zeros([3])),
                             parallel_iterations=1, maximum_iterations=passes)[1:]

    def _pass(self, batch: Batch, resident: tuple[tf.Tensor, tf.Tensor] | None,
              loss_scale: tf.Tensor) -> tuple[Sequence[tf.Tensor], tf.Tensor]:
        """(the gradients, the sums for the metrics) of some rows, as `Summands` has them."""
        model, config, plan, runtime = self._model, self._job.config, self._job.plan, self._job.runtime
        images, target = self._seen(batch, resident)
        with tf.GradientTape() as tape:
            with drawn_by_example(self._state, batch.seeds):
                logits = model(images, training=True)
            # Known once the model has been traced; a frozen layer's weights are only read, and needn't travel.
            graph = tf.compat.v1.get_default_graph()
            self._written = [_may_write(graph, variable) for variable in self._state.buffers]
            losses = example_losses(target, logits, config.label_smoothing, self._feed.class_weights, self._loss)
            if batch.mask is not None:
                losses *= batch.mask
            loss = tf.reduce_sum(losses) / plan.batch_size
            objective = loss
            if penalties := as_float32(model.losses):
                # Every pass of every replica computes the whole of Keras's regularization, and all are summed.
                objective += tf.add_n([tf.zeros([]), *penalties]) / (plan.replicas * plan.passes)
            scaled = objective * loss_scale if runtime.precision == "float16" else objective  # elsewhere it is 1
        gradients: Any = tape.gradient(scaled, self._state.model.trainable_variables,
                                  unconnected_gradients=tf.UnconnectedGradients.ZERO)
        is_correct = tf.equal(tf.argmax(logits, 1, tf.int32), target.dominant())
        examples = tf.constant(float(plan.per_replica_pass_size))
        if batch.mask is not None:
            is_correct, examples = is_correct & (batch.mask > 0), tf.reduce_sum(batch.mask)
        correct = tf.math.count_nonzero(is_correct, dtype=tf.float32)
        return gradients, tf.stack([loss, correct, examples])

    def _augmented(self, batch: Batch, resident: tuple[tf.Tensor, tf.Tensor] | None) -> tuple[tf.Tensor, Target]:
        """(images, what a model should answer) of some rows, as training sees them."""
        runtime = self._job.runtime
        images, labels = ((batch.images, batch.labels) if resident is None else
                          (tf.gather(whole, batch.ids) for whole in resident))
        labels = tf.cast(labels, tf.int32)  # pyright: ignore[reportArgumentType, reportCallIssue]  None only if resident
        images, target = augment_batch(
            images, labels, batch.seeds, self._feed.augment,  # pyright: ignore[reportArgumentType]
            by_comparison=runtime.kind.avoids_scatters and runtime.xla)
        return shrink(images, self._side) if self._side else images, target


def _may_write(graph: Any, variable: keras.Variable) -> bool:
    """Whether an operation in the graph of a traced function may change a variable: any that isn't known to read it."""
    handle = variable.value.handle
    captured = [inside for outside, inside in graph.captures if outside is handle]
    return any(op.type not in _READS for inside in captured for op in inside.consumers())


def as_float32(tensors: Sequence[Any]) -> list[tf.Tensor]:
    """The tensors, cast to float32."""
    return [tf.cast(tensor, tf.float32) for tensor in tensors]
