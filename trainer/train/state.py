"""The state of a run: exactly what a checkpoint must hold, and nothing that can be worked out again."""

import keras
import numpy as np

from trainer import models
from trainer.models import applications
from trainer.models.pooling import pool_by_comparison
from trainer.process.tf_import import tf
from trainer.storage import bit_versions
from trainer.train import optimizers

_PRIME = 1_000_003
_FIRST_LOSS_SCALE = 2.0**15
_RANDOM_STATE = "seed_generator_state"  # as Keras calls it


class TrainState:
    """Model, optimizer and counters, created and built for a strategy.

    Not in here, because it follows from (seed, step): the place in the data, its order, augmentation, dropout.

    Attributes:
        model: The `keras.Model` that trains.
        optimizer: Its optimizer, built.
        step: int64, steps done.
        skipped: int64, steps whose update was skipped because gradients weren't finite.
        loss_scale: float32, what the loss is multiplied by before float16's backward pass; else 1.
        finite_steps: int64, steps since the loss scale changed last.
        bit_versions: Name to version of what decides bits; see bit_versions.py.
    """

    def __init__(self, job):
        """Creates the state of step 0; all of it follows from the configuration's seed.

        Args:
            job: The `Job`.
        """
        config, runtime = job.config, job.runtime
        keras.utils.set_random_seed(config.seed)
        self._strategy, self._copies, self.bit_versions = runtime.strategy, {}, bit_versions.CURRENT
        self._sum = None
        with runtime.strategy.scope():
            self.model = models.build(config.model, len(job.data.classes), job.data.image_shape, runtime.precision)
            if config.model.startswith("keras:"):
                applications.require_loadable(config.model.removeprefix("keras:"), config.export, self.model)
            if runtime.kind.avoids_scatters:
                pool_by_comparison(self.model)
            self.optimizer = optimizers.make_optimizer(config, job.plan)
            self.optimizer.build(self.model.trainable_variables)
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
            self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False, name="skipped")
            self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="good_in_row")
            self.loss_scale = tf.Variable(1.0, trainable=False, name="loss_scale")
        self.reset_loss_scale(runtime.precision)

    def reset_loss_scale(self, precision):
        """Begins anew with the loss scale that a precision starts from."""
        self.loss_scale.assign(_FIRST_LOSS_SCALE if precision == "float16" else 1.0)
        self.finite_steps.assign(0)

    @property
    def random_states(self):
        """The states of the model's random layers, such as dropout: integers [2] each, set anew at every step."""
        return [variable for variable in self.model.non_trainable_variables
                if variable.name == _RANDOM_STATE]

    @property
    def buffers(self):
        """What no gradient changes: batch norm's moving averages, which training writes, and frozen weights."""
        return [variable for variable in self.model.non_trainable_variables
                if tf.as_dtype(variable.dtype).is_floating]

    def variables(self):
        """All of it by the names that it has in a checkpoint.

        Returns:
            A dict of name to `tf.Variable`: step, skipped, …, model/0000/kernel, …, adam/0000, …
        """
        counters = {"step": self.step, "skipped": self.skipped, "good_in_row": self.finite_steps,
                    "loss_scale": self.loss_scale}
        return {**counters, **model_variables(self.model),
                **{f"{type(self.optimizer).__name__.lower()}/{number:04d}": variable.value
                   for number, variable in enumerate(self.optimizer.variables)}}

    def checksums(self):
        """A number for what each of this process's replicas holds: a list of ints. Equal states have equal ones."""
        if self._sum is None:
            self._sum = tf.function(lambda: self._strategy.run(self._checksum))
        return [int(part) for part in self._strategy.experimental_local_results(self._sum())]

    def _checksum(self):
        """int64: the sum of all bits as whole numbers, of each variable by itself, put together in their order."""
        total = tf.zeros([], tf.int64)
        for variable in self.variables().values():
            value = variable.read_value()
            bits = {2: tf.int16, 4: tf.int32, 8: tf.int64}.get(value.dtype.size)
            whole = tf.bitcast(value, bits) if bits and value.dtype.is_floating else value
            total = total * _PRIME + tf.reduce_sum(tf.cast(whole, tf.int64))
        return total

    def snapshot(self):
        """Copies all of it to the host, so that training can go on while the copies are written.

        Returns:
            A dict of name to tensor. The next call overwrites them: fresh memory for each copy would cost
            more than all the rest of a save.
        """
        # The first local replica's speaks for all; asking a statistic as a whole would average equal values again.
        first = self._strategy.experimental_local_results
        for name, variable in self.variables().items():
            value = np.asarray(first(variable)[0].read_value())
            if name not in self._copies:
                copy = np.empty_like(value)
                self._copies[name] = copy, tf.experimental.dlpack.from_dlpack(copy.__dlpack__())
            np.copyto(self._copies[name][0], value)
        return {name: tensor for name, (_, tensor) in self._copies.items()}


def model_variables(model):
    """A model's variables by the names that they have in a checkpoint: model/0000/kernel, model/0001/bias, …

    By number, because Keras's own names depend on what else the process has built. The states of random
    layers are not among them: they follow from (seed, step).
    """
    lasting = [variable for variable in model.variables if variable.name != _RANDOM_STATE]
    return {f"model/{number:04d}/{variable.name}": variable.value for number, variable in enumerate(lasting)}
