"""The optimizer of a run: Keras's rules for an update, on gradients that were already reduced.

Keras's TensorFlow optimizers sum gradients over replicas by themselves, after they clipped each
replica's own and without looking whether the sum is finite. Here the step reduces first and the
optimizer only updates, replica by replica, with nothing that crosses them; that is also what lets XLA
compile the update and a branch skip it.
"""

import functools
import math

import keras

from trainer.config import OPTIMIZERS
from trainer.process.tf_import import tf


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate at an update.

    During the warm-up, update t of w has peak · (t + 1) / w. After it, with the fraction
    f = (t - w) / (total - w) of the rest done: constant: peak; cosine: peak · (1 + cos πf) / 2;
    linear: peak · (1 - f); step: peak, a tenth of it from f = 1/2 on, a hundredth from 3/4 on.

    Args:
        name: constant, cosine, linear or step.
        peak: The highest rate.
        warmup: Updates of the warm-up.
        total: Updates of the run.
    """

    def __init__(self, name, peak, warmup, total):
        self.name, self.peak, self.warmup, self.total = name, peak, warmup, total

    def __call__(self, step):
        """Args: step: updates so far, a whole number or tensor. Returns: float32 scalar."""
        done = tf.cast(step, tf.float32)
        fraction = tf.clip_by_value((done - self.warmup) / max(1, self.total - self.warmup), 0.0, 1.0)
        rate = self.peak * {
            "constant": lambda f: tf.ones_like(f),
            "cosine": lambda f: 0.5 * (1.0 + tf.cos(math.pi * f)),
            "linear": lambda f: 1.0 - f,
            "step": lambda f: tf.where(f < 0.5, 1.0, tf.where(f < 0.75, 0.1, 0.01)),
        }[self.name](fraction)
        return tf.where(done < self.warmup, self.peak * (done + 1.0) / max(1, self.warmup), rate)

    def get_config(self):
        """The constructor's arguments."""
        return {"name": self.name, "peak": self.peak, "warmup": self.warmup, "total": self.total}


def make_optimizer(config, plan):
    """The optimizer that a configuration names, with its schedule.

    Args:
        config: The run's `Config`.
        plan: The run's `Plan`.

    Returns:
        A Keras optimizer with one method more: `update(gradients, variables)`. See `_replica_local`.
    """
    rate = Schedule(config.schedule, config.learning_rate, plan.warmup_steps, plan.total_steps)
    momentum = float(config.momentum)
    extra = {"sgd": {"momentum": momentum, "nesterov": momentum > 0}, "muon": {"momentum": momentum},
             # AdamW alone insists on a number; no decay is 0 there.
             "adamw": {"weight_decay": config.weight_decay}}.get(config.optimizer, {})
    return _replica_local(getattr(keras.optimizers, OPTIMIZERS[config.optimizer]))(
        **{"learning_rate": rate, "weight_decay": config.weight_decay or None, **extra})


@functools.cache
def _replica_local(base):
    """A subclass of a Keras optimizer that updates one replica's copies by themselves.

    Overrides two private methods of Keras 3.15's TensorFlow optimizer, which would go through
    `merge_call`: neither XLA nor a branch allows that. The tests hold each optimizer against the
    original on one device.
    """

    class ReplicaLocal(base):
        def update(self, gradients, variables):
            """Applies gradients that are the same on every replica.

            Leaves `iterations` alone: the step counts it, outside of the branch.

            Args:
                gradients: float32 tensors, summed over replicas and clipped already.
                variables: The Keras variables that the optimizer was built with, in the same order.
            """
            self._backend_apply_gradients(gradients, variables)
            for variable in variables:
                if variable.constraint is not None:
                    variable.value.assign(variable.constraint(variable.value))

        def _backend_update_step(self, grads, trainable_variables, learning_rate):
            for gradient, variable in zip(grads, trainable_variables, strict=True):
                self.update_step(gradient, variable.value, learning_rate)

        def _apply_weight_decay(self, variables):
            for variable in variables:
                if self.weight_decay and len(variable.shape) > 1:
                    value = variable.value
                    value.assign_sub(value * (self.weight_decay * self.learning_rate))

    ReplicaLocal.__name__ = base.__name__
    return ReplicaLocal
