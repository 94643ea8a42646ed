"""The state of a run: exactly what a checkpoint must hold, and nothing that can be computed again."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from trainer import models
from trainer.models import applications
from trainer.models.freezing import freeze, freeze_own
from trainer.models.normalization import normalize_in_one_pass, normalize_over_replicas
from trainer.models.pooling import pool_by_comparison
from trainer.models.rate_factors import rate_factors
from trainer.models.sizes import for_sizes
from trainer.process.tf_import import tf
from trainer.storage import bit_versions
from trainer.train import optimizers
from trainer.train.step.averages import RANDOM_STATE, Averages, saved_variables

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.plan import Job
    from trainer.train.optimizers import RangeTest

_PRIME = 1_000_003
_VALUES_AT_ONCE = 2**20  # as float64 beside the weights
_FIRST_LOSS_SCALE = 2.0**15


class TrainState:
    """Model, optimizer and counters, created and built for a strategy.

    The state doesn't hold what follows from (seed, step): the position in the data, its order, augmentation, dropout.

    Args:
        job: What the run trains. The state of step 0 follows from its seed.
        schedule: The learning rates; None for those of the run.

    Attributes:
        model: The model that trains.
        crosses_replicas: Whether its forward pass does, as it does with `--sync_batch_norm`.
        sized: Side in pixels to the model for images of that size, with the same weights, for `--train_sizes`.
        optimizer: Its optimizer, built.
        averages: The averages of its weights; None without `--ema_decay`.
        step: int64, steps done.
        skipped: int64, steps whose update was skipped because gradients weren't finite.
        loss_scale: float32, the factor of the loss before float16's backward pass; 1 in other precisions.
        finite_steps: int64, finite steps since the loss scale changed last.
        bit_versions: Name to version of what decides bits, as storage/bit_versions.py describes them.
    """

    def __init__(self, job: Job, schedule: RangeTest | None = None) -> None:
        config, runtime = job.config, job.runtime
        keras.utils.set_random_seed(config.seed)
        self._strategy, self.bit_versions = runtime.strategy, bit_versions.CURRENT
        self._copies: dict[str, tuple[np.ndarray, tf.Tensor]] = {}  # name to a host's copy, as an array and a tensor
        self._sum: Any = None
        with runtime.strategy.scope():
            self.model = self._build(job)
            if config.model.startswith("keras:"):
                applications.require_loadable(config.model.removeprefix("keras:"), config.formats, self.model)
            if runtime.kind.avoids_scatters:
                pool_by_comparison(self.model)
            self.crosses_replicas = (config.sync_batch_norm and job.plan.replicas > 1
                                     and normalize_over_replicas(self.model))
            if runtime.kind.one_pass_moments and runtime.xla and not self.crosses_replicas:
                normalize_in_one_pass(self.model)
            freeze(self.model, config.freeze)
            freeze_own(self.model, models.frozen_paths(config.model))
            self.sized = for_sizes(self.model, [side for _, side in job.plan.train_sizes])
            self.optimizer = optimizers.make_optimizer(config, job.plan, schedule)
            self.optimizer.rate_factors = rate_factors(self.model, config)
            self.optimizer.build(self.model.trainable_variables)
            self.step = _scalar(0, tf.int64, "step")
            self.skipped = _scalar(0, tf.int64, "skipped")
            self.finite_steps = _scalar(0, tf.int64, "good_in_row")
            self.loss_scale = _scalar(1.0, tf.float32, "loss_scale")
            self.averages = Averages(self.model, self._build(job), config.ema_decay) if config.ema_decay else None
        self.reset_loss_scale(runtime.precision)

    @staticmethod
    def _build(job: Job) -> keras.Model:
        return models.build(job.config.model, len(job.data.classes), job.data.image_shape, job.runtime.precision,
                            job.config.drop_path)

    @property
    def evaluated(self) -> keras.Model:
        """The model that is evaluated and exported: the averages with `--ema_decay`, else the model that trains."""
        return self.averages.model if self.averages else self.model

    def set_weights(self, values: Sequence[np.ndarray | None]) -> None:
        """Sets the weights with which a run begins, and all that is a copy of them.

        Args:
            values: A value for each of the model's saved variables; None for those that stay as they are.
        """
        models_of_state = [self.model, *([self.averages.model] if self.averages else [])]
        for model in models_of_state:
            for variable, value in zip(saved_variables(model), values, strict=True):
                if value is not None:
                    variable.assign(value)
        self.optimizer.restart_slow_weights(self.model.trainable_variables)

    def reset_loss_scale(self, precision: str) -> None:
        """Sets the loss scale to the first one of a precision.

        Args:
            precision: float32, bfloat16 or float16.
        """
        self.loss_scale.assign(_FIRST_LOSS_SCALE if precision == "float16" else 1.0)
        self.finite_steps.assign(0)

    @property
    def random_states(self) -> list[keras.Variable]:
        """The states of the model's random layers, such as dropout: integers [2] each, which every step sets."""
        return [variable for variable in self.model.non_trainable_variables
                if variable.name == RANDOM_STATE]

    @property
    def buffers(self) -> list[keras.Variable]:
        """The variables without a gradient: batch norm's moving averages, which training writes, and frozen weights."""
        return [variable for variable in self.model.non_trainable_variables
                if tf.as_dtype(variable.dtype).is_floating]

    def variables(self) -> dict[str, tf.Variable]:
        """All variables of the state, by their names in a checkpoint.

        Returns:
            A dict of name to variable: step, skipped, …, model/0000/kernel, …, adam/0000, …; with averages also
            average/0000/kernel, …
        """
        counters = {"step": self.step, "skipped": self.skipped, "good_in_row": self.finite_steps,
                    "loss_scale": self.loss_scale}
        averages = model_variables(self.averages.model, "average") if self.averages else {}
        return {**counters, **model_variables(self.model), **averages,
                **{f"{type(self.optimizer).__name__.lower()}/{index:04d}": variable.value
                   for index, variable in enumerate(self.optimizer.variables)}}

    def weights_norm(self) -> float:
        """The Euclidean norm of all weights that train, summed in float64."""
        squares = []
        for variable in self.model.trainable_variables:
            values = np.asarray(self._strategy.experimental_local_results(variable.value)[0].read_value()).ravel()
            squares += [float(np.sum(np.square(values[begin:begin + _VALUES_AT_ONCE], dtype=np.float64)))
                        for begin in range(0, len(values), _VALUES_AT_ONCE)]
        return math.sqrt(math.fsum(squares))

    def checksums(self) -> list[int]:
        """A checksum of the state of each of this process's replicas: equal states have equal checksums."""
        if self._sum is None:
            self._sum = tf.function(functools.partial(self._strategy.run, self._checksum), autograph=False)
        return [int(checksum) for checksum in self._strategy.experimental_local_results(self._sum())]

    def _checksum(self) -> tf.Tensor:
        """int64: the sums of each variable's bits as whole numbers, combined in the order of the variables."""
        total = tf.zeros([], tf.int64)
        for variable in self.variables().values():
            value = variable.read_value()
            bits = {2: tf.int16, 4: tf.int32, 8: tf.int64}.get(value.dtype.size)
            whole = tf.bitcast(value, bits) if bits and value.dtype.is_floating else value
            total = total * _PRIME + tf.reduce_sum(tf.cast(whole, tf.int64))
        return total

    def snapshot(self) -> dict[str, tf.Tensor]:
        """Copies the state to the host, so that training can go on while the copies are written.

        Returns:
            A dict of name to tensor. The next call overwrites the tensors: new memory for each copy would cost
            more than all the rest of a save.
        """
        # All replicas hold the same values; read the first. Reading a statistic as a whole would average equal values.
        local_values = self._strategy.experimental_local_results
        for name, variable in self.variables().items():
            value = np.asarray(local_values(variable)[0].read_value())
            if name not in self._copies:
                copy = np.empty_like(value)
                self._copies[name] = copy, tf.experimental.dlpack.from_dlpack(copy.__dlpack__())
            np.copyto(self._copies[name][0], value)
        return {name: tensor for name, (_, tensor) in self._copies.items()}


def _scalar(initial_value: Any, dtype: tf.DType, name: str) -> tf.Variable:
    return tf.Variable(initial_value, dtype=dtype, trainable=False, name=name)


def model_variables(model: keras.Model, group: str = "model") -> dict[str, tf.Variable]:
    """A model's variables by their names in a checkpoint: model/0000/kernel, model/0001/bias, …

    The names contain an index, because Keras's own names depend on what else the process has built. The states of
    random layers are left out: they follow from (seed, step).

    Args:
        model: The model.
        group: What the names begin with: model, or average for those of `--ema_decay`.
    """
    return {f"{group}/{index:04d}/{variable.name}": variable.value
            for index, variable in enumerate(saved_variables(model))}


def evaluated_variables(model: keras.Model, config: Config) -> dict[str, tf.Variable]:
    """A model's variables by the names that a checkpoint has for what the run evaluates.

    Args:
        model: A model of the run's kind.
        config: The run's settings.
    """
    return model_variables(model, "average" if config.ema_decay else "model")
