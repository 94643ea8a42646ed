"""Part 3 of a step: unscale, check that all is finite, clip, update. The same on every replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.plan import Job
    from trainer.train.state import TrainState
    from trainer.train.step.gradients import Gradients, Summands

_GROW_LOSS_SCALE_AFTER = 2_000  # steps, as in Micikevicius et al. 2018, "Mixed precision training"


class Update:
    """Changes the state by the sums over all replicas. Its methods are for use inside a traced function.

    Args:
        job: What the run trains.
        state: The state that is changed.
        gradients: Whose summands were summed.
    """

    def __init__(self, job: Job, state: TrainState, gradients: Gradients) -> None:
        self._job, self._state, self._gradients = job, state, gradients
        optimizer, weights = state.optimizer, state.model.trainable_variables

        @tf.function(jit_compile=job.runtime.xla, autograph=False)
        def update(tensors: list[tf.Tensor]) -> None:
            optimizer.update(tensors, weights)

        @tf.function(jit_compile=job.runtime.xla, autograph=False)
        def average(applied: tf.Tensor) -> None:
            if state.averages:
                state.averages.update([*weights, *gradients.statistics], optimizer.iterations, applied)

        self._compiled, self._average = update, average

    def apply_finite(self, summed: Summands, before: Sequence[tf.Tensor]) -> tf.Tensor:
        """Updates as `apply` does, but computes the update in any case and keeps it if all is finite.

        For an XLA program: nothing of it is known to the host, and nothing of it crosses replicas. On several replicas
        the caller counts `iterations`, which TensorFlow aggregates.

        Args:
            summed: The sums over all replicas.
            before: The statistics before the step.

        Returns:
            float32 [6 or 7], a row of `StepRecords`.
        """
        state, optimizer = self._state, self._state.optimizer
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(tensor)) for tensor in (
            *summed.gradients, *summed.statistics, summed.sums)])
        loss_scale, learning_rate = tf.identity(state.loss_scale), tf.identity(optimizer.learning_rate)
        gradients, norm = self._unscaled_and_clipped(summed.gradients, loss_scale)
        weights = state.model.trainable_variables
        changed = [variable.value for variable in (*weights, *optimizer.variables)
                   if variable is not optimizer.iterations]
        old_values = [tf.identity(variable) for variable in changed]
        optimizer.update(gradients, weights)
        for variable, old in zip(changed, old_values, strict=True):
            variable.assign(tf.where(finite, tf.convert_to_tensor(variable), old))
        return self._count(summed, finite, before, loss_scale, learning_rate, norm)

    def apply(self, summed: Summands, finite: tf.Tensor, before: Sequence[tf.Tensor],
              loss_scale: tf.Tensor) -> tf.Tensor:
        """Updates, unless something isn't finite: then all replicas skip the step.

        Args:
            summed: The sums over all replicas.
            finite: Whether all of `summed` is finite.
            before: The statistics before the step.
            loss_scale: The factor of the loss in the backward pass.

        Returns:
            float32 [6 or 7], a row of `StepRecords`.
        """
        optimizer = self._state.optimizer
        gradients, norm = self._unscaled_and_clipped(summed.gradients, loss_scale)
        learning_rate = tf.identity(optimizer.learning_rate)
        # Nothing in this branch crosses replicas.
        tf.cond(finite, lambda: self._compiled(gradients), lambda: None)
        row = self._count(summed, finite, before, loss_scale, learning_rate, norm)
        optimizer.iterations.assign_add(tf.cast(finite, optimizer.iterations.dtype))
        return row

    def _unscaled_and_clipped(self, gradients: Sequence[tf.Tensor],
                              loss_scale: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """(the gradients of the update, their global norm before clipping as a list of one, or [] if nobody asks)."""
        if self._job.runtime.precision == "float16":  # elsewhere the scale is 1
            gradients = [tensor / loss_scale for tensor in gradients]
        norm = []
        if self._job.config.clip_norm:
            gradients, *norm = tf.clip_by_global_norm(gradients, self._job.config.clip_norm)
        elif self._job.config.log_gradient_norm:
            norm = [tf.linalg.global_norm(gradients)]
        return list(gradients), norm

    def _count(self, summed: Summands, finite: tf.Tensor, before: Sequence[tf.Tensor], loss_scale: tf.Tensor,
               learning_rate: tf.Tensor, norm: list[tf.Tensor]) -> tf.Tensor:
        """Keeps the statistics, moves the averages, counts all but `iterations`; returns the row of `StepRecords`."""
        job, state = self._job, self._state
        for statistic, old, new in zip(self._gradients.statistics, before, summed.statistics, strict=True):
            statistic.value.assign(tf.where(finite, tf.cast(new, old.dtype), old))
        if state.averages:
            self._average(finite)
        _advance_counters(state, finite)
        if job.runtime.precision == "float16":
            _update_loss_scale(state, finite)
        loss, correct, examples = tf.unstack(summed.sums)
        loss *= job.plan.batch_size / examples  # the mean over the examples that could be read
        return tf.stack([loss, correct, learning_rate, tf.cast(finite, tf.float32), examples, loss_scale, *norm])


def _advance_counters(state: TrainState, finite: tf.Tensor) -> None:
    """Counts a step, and counts it as skipped if it isn't finite."""
    state.step.assign_add(tf.constant(1, tf.int64))
    state.skipped.assign_add(tf.cast(tf.logical_not(finite), tf.int64))


def _update_loss_scale(state: TrainState, finite: tf.Tensor) -> None:
    """Halves the loss scale after an overflow; doubles it after 2,000 finite steps."""
    steps = (state.finite_steps + 1) * tf.cast(finite, tf.int64)
    grown = steps >= _GROW_LOSS_SCALE_AFTER
    scale = tf.where(finite, state.loss_scale * tf.where(grown, 2.0, 1.0), state.loss_scale / 2.0)
    state.loss_scale.assign(tf.clip_by_value(scale, 1.0, 2.0**24))
    state.finite_steps.assign(tf.where(grown, tf.zeros_like(steps), steps))
