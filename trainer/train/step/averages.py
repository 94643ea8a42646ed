"""The exponential moving average of a run's weights: what `--ema_decay` evaluates, chooses and exports.

Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging", in the exponential form of TensorFlow's
`tf.train.ExponentialMovingAverage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras

RANDOM_STATE = "seed_generator_state"  # Keras's name


def saved_variables(model: keras.Model) -> list[keras.Variable]:
    """A model's variables without the states of random layers, which follow from the seed and the step."""
    return [variable for variable in model.variables if variable.name != RANDOM_STATE]


class Averages:
    """The averages of a model's variables, as the variables of a second model that can be evaluated.

    Update t, counted from 0, makes a ← a + (1 - d) · (w - a), with d = min(decay, (1 + t) / (10 + t)): the first
    weights are forgotten after some updates, however near to 1 the decay is. An update that was skipped leaves the
    averages as they are. Batch norm's moving averages are averaged as the weights are (as in timm's `ModelEmaV3` and in
    EfficientNet's training; Keras's `use_ema` leaves them out): they fit the weights of the same age.

    Args:
        model: The model that trains.
        copy: A model of the same kind; it gets the weights of `model` now, and the averages from then on.
        decay: From 0 to below 1.

    Attributes:
        model: The argument `copy`.
    """

    def __init__(self, model: keras.Model, copy: keras.Model, decay: float) -> None:
        self.model, self._decay = copy, decay
        self._average_of = {}
        for variable, average in zip(saved_variables(model), saved_variables(copy), strict=True):
            average.assign(variable)
            self._average_of[id(variable)] = average

    def update(self, variables: Sequence[keras.Variable], updates: tf.Tensor, applied: tf.Tensor) -> None:
        """Moves the averages of some variables; for use inside a traced function, on one replica by itself.

        Args:
            variables: Variables of the model that trains, with their new values.
            updates: Number of updates before this one.
            applied: Whether this update was applied: bool.
        """
        done = tf.cast(updates, tf.float32)
        share = tf.where(applied, 1.0 - tf.minimum(self._decay, (1.0 + done) / (10.0 + done)), 0.0)
        for variable in variables:
            average = self._average_of[id(variable)].value
            if average.dtype.size < 4:
                average.assign(variable.value)  # too few bits for small differences
            else:
                average.assign_add(tf.cast(share, average.dtype) * (variable.value - average))
