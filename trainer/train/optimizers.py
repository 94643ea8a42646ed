"""The optimizer of a run: Keras's rules for an update, on gradients that were already reduced.

Keras's TensorFlow optimizers sum gradients over replicas by themselves, after clipping each replica's gradients and
without checking whether the sum is finite. Here the step reduces first and the optimizer only updates, on each replica
by itself; only such an update can be compiled by XLA, and be skipped by a branch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from trainer.config import OPTIMIZERS
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.plan import Plan


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate at an update.

    During the warm-up, update t of w has peak · (t + 1) / w. After it, with the fraction
    f = (t - w) / (total - w) of the rest done: constant: peak; cosine: peak · (1 + cos πf) / 2;
    linear: peak · (1 - f); step: peak, a tenth of it from f = 1/2 on, a hundredth from 3/4 on.

    Args:
        name: constant, cosine, linear or step.
        peak: The peak learning rate.
        warmup: Number of updates of the warm-up.
        total: Number of updates of the run.
    """

    def __init__(self, name: str, peak: float, warmup: int, total: int) -> None:
        self.name, self.peak, self.warmup, self.total = name, peak, warmup, total

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """The learning rate at an update.

        Args:
            step: Number of updates before it.

        Returns:
            A float32 scalar.
        """
        done = tf.cast(step, tf.float32)
        fraction = tf.clip_by_value((done - self.warmup) / max(1, self.total - self.warmup), 0.0, 1.0)
        rate = self.peak * _DECAYS[self.name](fraction)
        return tf.where(done < self.warmup, self.peak * (done + 1.0) / max(1, self.warmup), rate)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"name": self.name, "peak": self.peak, "warmup": self.warmup, "total": self.total}


def _cosine(fraction: tf.Tensor) -> tf.Tensor:
    return 0.5 * (1.0 + tf.cos(math.pi * fraction))


def _linear(fraction: tf.Tensor) -> tf.Tensor:
    return 1.0 - fraction


def _step(fraction: tf.Tensor) -> tf.Tensor:
    return tf.where(fraction < 0.5, 1.0, tf.where(fraction < 0.75, 0.1, 0.01))


# Name to the function of the fraction that is done after the warm-up, float32, to the share of the peak.
_DECAYS = {"constant": tf.ones_like, "cosine": _cosine, "linear": _linear, "step": _step}


class RangeTest(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rates that rise by the same factor from each update to the next.

    The range test of Smith 2017, arXiv:1506.01186, section 3.3.

    Args:
        lowest: The learning rate of the first update.
        highest: The learning rate of the last.
        updates: Number of updates, two or more.

    Attributes:
        first: Number of updates that the optimizer has done before.
    """

    def __init__(self, lowest: float, highest: float, updates: int) -> None:
        self.lowest, self.highest, self.updates, self.first = lowest, highest, updates, 0

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """The learning rate at an update, as `Schedule` returns it."""
        fraction = tf.cast(step - self.first, tf.float32) / (self.updates - 1)
        return self.lowest * tf.exp(fraction * math.log(self.highest / self.lowest))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"lowest": self.lowest, "highest": self.highest, "updates": self.updates}


def make_optimizer(config: Config, plan: Plan, schedule: RangeTest | None = None) -> Any:
    """The optimizer that the settings name, with its schedule.

    Args:
        config: The run's settings.
        plan: The run's plan.
        schedule: The learning rates; None for those that the settings name.

    Returns:
        A Keras optimizer with the additional method `update(gradients, variables)`, which applies gradients on one
        replica by itself. With `--lookahead_steps` its variables hold the slow weights, too.
    """
    rate = schedule or Schedule(config.schedule, plan.learning_rate, plan.warmup_steps, plan.total_steps)
    momentum = float(config.momentum)
    extra = {"sgd": {"momentum": momentum, "nesterov": momentum > 0}, "muon": {"momentum": momentum},
             # AdamW alone requires a number; no decay is 0.
             "adamw": {"weight_decay": config.weight_decay}}.get(config.optimizer, {})
    optimizer = _replica_local(getattr(keras.optimizers, OPTIMIZERS[config.optimizer]))(
        **{"learning_rate": rate, "weight_decay": config.weight_decay or None, **extra})
    optimizer.lookahead_steps, optimizer.lookahead_alpha = config.lookahead_steps, config.lookahead_alpha
    return optimizer


@functools.cache
def _replica_local(base: type[Any]) -> type[Any]:
    """A subclass of a Keras optimizer that updates one replica's copies by themselves.

    Overrides two private methods of Keras 3.15's TensorFlow optimizer, which would call `merge_call`: neither XLA nor a
    branch allows that. The tests compare each optimizer with the original on one device.
    """

    class ReplicaLocal(base):
        lookahead_steps, lookahead_alpha = 0, 1.0
        rate_factors: Sequence[float] = ()  # of each weight, as models/rate_factors.py has them; () for 1 of all

        def build(self, variables: Sequence[keras.Variable]) -> None:
            """Makes the variables of the optimizer.

            Args:
                variables: The weights.
            """
            super().build(variables)
            self._slow: list[keras.Variable] = []
            if self.lookahead_steps:
                self._slow = [self.add_variable_from_reference(variable, name="slow") for variable in variables]
                self.restart_slow_weights(variables)

        def restart_slow_weights(self, variables: Sequence[keras.Variable]) -> None:
            """Sets lookahead's slow weights to the weights, which were set from outside.

            Args:
                variables: As in `build`.
            """
            for slow, variable in zip(self._slow, variables, strict=bool(self._slow)):
                slow.assign(variable)

        def update(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> None:
            """Applies gradients that are the same on every replica.

            Doesn't change `iterations`: the step counts the updates, outside of the branch.

            Args:
                gradients: float32 tensors, summed over replicas and clipped already.
                variables: The Keras variables that the optimizer was built with, in the same order.
            """
            self._backend_apply_gradients(gradients, variables)
            for variable in variables:
                if variable.constraint is not None:
                    variable.value.assign(variable.constraint(variable.value))
            self._look_ahead(variables)

        def _look_ahead(self, variables: Sequence[keras.Variable]) -> None:
            """After every k updates: slow ← slow + α · (fast − slow), and fast ← slow; the inner optimizer goes on.

            Zhang, Lucas, Hinton & Ba 2019, "Lookahead optimizer: k steps forward, 1 step back", arXiv:1907.08610.
            """
            for slow, variable in zip(self._slow, variables, strict=bool(self._slow)):
                due = tf.equal((self.iterations + 1) % self.lookahead_steps, 0)
                moved = slow.value + self.lookahead_alpha * (variable.value - slow.value)
                slow.value.assign(tf.where(due, moved, slow.value))
                variable.value.assign(tf.where(due, moved, variable.value))

        def _backend_update_step(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable],
                                 learning_rate: tf.Tensor) -> None:
            rates = self._rates(learning_rate, trainable_variables)
            for gradient, variable, rate in zip(grads, trainable_variables, rates, strict=True):
                self.update_step(gradient, variable.value, rate)

        def _rates(self, rate: tf.Tensor, variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
            """Each weight's learning rate."""
            factors = self.rate_factors or [1.0] * len(variables)
            return [rate if factor == 1 else rate * factor for factor in factors]

        def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
            rates = self._rates(self.learning_rate, variables)
            for variable, rate in zip(variables, rates, strict=True):
                if self.weight_decay and len(variable.shape) > 1:
                    value = variable.value
                    value.assign_sub(value * (self.weight_decay * rate))

    ReplicaLocal.__name__ = base.__name__
    return ReplicaLocal
