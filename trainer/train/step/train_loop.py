"""The training step on every replica, and the loop over steps on the device. No input or output.

One step, on replica r of R:

    1. forward and backward on its part of the global batch (gradients.py)
    2. one all-reduce that sums everything that crosses replicas, outside XLA
    3. unscale, check that all is finite, clip, update (update.py): the same on every replica

On GPUs 1 and 3 are an XLA program each, on one replica a single one together; on CPUs, where XLA is slower, neither is.
What crosses replicas travels as one vector: all gradients, batch norm's statistics, the sums for the metrics.
Statistics are averaged in every step, so they are the same on all replicas whenever a run evaluates, saves or exports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.process.tf_import import tf
from trainer.train.step.gradients import Gradients, Summands, as_float32
from trainer.train.step.random_layers import seed_random_layers
from trainer.train.step.update import Update

if TYPE_CHECKING:
    import keras

    from trainer.data.pipeline import Feed
    from trainer.data.split import Batch
    from trainer.plan import Job, Plan
    from trainer.train.state import TrainState

_Array = Any  # a tensor where the device loop returns it, a NumPy array where the host reads it


class StepRecords(NamedTuple):
    """What n steps did, in order.

    Args:
        loss: float32 [n], the mean over the global batch.
        correct: float32 [n], number of correct predictions.
        learning_rate: float32 [n].
        finite: bool [n], whether all gradients were finite, so that the update was applied.
        examples: float32 [n], number of examples of the batch that could be read.
        loss_scale: float32 [n], the factor of the loss in the backward pass.
        ids: int64 [n, batch], the examples in the order of the global batch; None without --ledger.
        times: float64 [n, 2], when this worker's own part of each step was done and when the all-reduce was, in
            seconds since 1970; None for one worker.
    """

    loss: _Array
    correct: _Array
    learning_rate: _Array
    finite: _Array
    examples: _Array
    loss_scale: _Array
    ids: _Array | None
    times: _Array | None


# A function of a batch as `Gradients.compute` takes it, resident (images, labels) or None, and the replica's number to
# (float32 [6] for `StepRecords`, time stamps, empty for one worker).
_Compute = Callable[["Batch | tf.Tensor", tuple[tf.Tensor, tf.Tensor] | None, int],
                    tuple[tf.Tensor, list[tf.Tensor]]]


def _pack(summands: Summands) -> tf.Tensor:
    """All summands as one float32 vector."""
    tensors = as_float32([*summands.gradients, *summands.statistics, summands.sums])
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def _unpack(vector: tf.Tensor, weights: Sequence[keras.Variable], statistics: Sequence[keras.Variable]) -> Summands:
    """The `Summands` that were packed."""
    shapes = [*(tuple(variable.shape) for variable in (*weights, *statistics)), (3,)]
    parts = tf.split(vector, [tf.TensorShape(shape).num_elements() for shape in shapes])
    *tensors, sums = (tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True))
    return Summands(tensors[:len(weights)], tensors[len(weights):], sums)


class TrainLoop:
    """The function that trains: a number of steps to their `StepRecords`.

    Args:
        job: What the run trains.
        state: The state that each step changes.
        feed: What training reads.
    """

    def __init__(self, job: Job, state: TrainState, feed: Feed) -> None:
        replica_step = _make_replica_step(job, state, feed)
        strategy, ledger, several_workers = job.runtime.strategy, job.config.ledger, job.runtime.workers > 1
        self._positions = feed.positions
        self._specs = [tf.TensorSpec([], tf.int32), self._positions.spec if self._positions else []]

        @tf.function(input_signature=self._specs, autograph=False)
        def train(steps: tf.Tensor, positions: list[tf.Tensor]) -> StepRecords:
            # An array of records for each of `StepRecords`' sources that this run has.
            arrays = [tf.TensorArray(tf.float32, steps, element_shape=[6])]
            arrays += [tf.TensorArray(tf.int64, steps, element_shape=[job.plan.batch_size])] if ledger else []
            arrays += [tf.TensorArray(tf.float64, steps, element_shape=[2])] if several_workers else []

            def step(index: tf.Tensor, *arrays: tf.TensorArray) -> tuple[Any, ...]:
                # All replicas return the same values; read the first.
                results = [strategy.experimental_local_results(result)[0]
                           for result in strategy.run(replica_step, (index, positions))]
                return index + 1, *(array.write(index, result) for array, result in zip(arrays, results, strict=True))

            _, *arrays = tf.while_loop(lambda index, *_: index < steps, step, (tf.constant(0), *arrays))
            rows, *others = [array.stack() for array in arrays]
            loss, correct, learning_rate, finite, examples, scale = tf.unstack(rows, axis=1)
            return StepRecords(loss, correct, learning_rate, finite > 0, examples, scale,
                               others.pop(0) if ledger else None, others.pop(0) if several_workers else None)

        self.function = train

    def __call__(self, steps: int) -> StepRecords:
        """Does so many steps."""
        return self.function(tf.constant(steps, tf.int32), self._positions.take(steps) if self._positions else [])

    def trace(self) -> Any:
        """The loop's concrete function, whose graph shows what a step consists of."""
        return self.function.get_concrete_function(*self._specs)


def _make_replica_step(job: Job, state: TrainState, feed: Feed) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Makes a step on a replica: a function of the step's number in the call, and of what `DevicePositions` gave, to
    (float32 [6] for `StepRecords`, with --ledger the ids, on several workers the time stamps)."""
    runtime = job.runtime
    fuses = runtime.xla and runtime.kind.fuses
    compute = (_in_two_programs if fuses and job.plan.replicas > 1 else _in_one_program if fuses else _in_parts)(
        job, state, feed)

    def replica_step(index: tf.Tensor, positions: list[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        context = tf.distribute.get_replica_context()
        # A constant while tracing: under a strategy this function is traced once per replica.
        replica_id = int(tf.get_static_value(context.replica_id_in_sync_group) or 0)
        local = replica_id % len(feed.resident)
        batch = positions[local][index] if positions else next(feed.iterators[local])
        row, timestamps = compute(batch, feed.resident[local], replica_id)
        used = ([_all_ids(batch[0] if positions else batch.ids, replica_id, job.plan, context)]
                if job.config.ledger else [])
        return row, *used, *([tf.cast(timestamps, tf.float64)] if timestamps else [])

    return replica_step


def _in_parts(job: Job, state: TrainState, feed: Feed) -> _Compute:
    """Makes a step whose update a branch skips; with XLA, a program before the all-reduce and one for the update."""
    gradients = Gradients(job, state, feed)
    update, weights = Update(job, state, gradients), state.model.trainable_variables

    @tf.function(jit_compile=job.runtime.xla, autograph=False)
    def forward_backward(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                         loss_scale: tf.Tensor) -> tuple[tf.Tensor, Summands, list[tf.Tensor]]:
        summands, before = gradients.compute(batch, resident, loss_scale)
        return _pack(summands), summands, before

    def compute(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                replica_id: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        seed_random_layers(state, job.config.seed, replica_id, job.plan.replicas)
        loss_scale = tf.identity(state.loss_scale)
        vector, summands, before = forward_backward(batch, resident, loss_scale)
        vector, timestamps = _all_reduce(job, vector)
        finite = tf.reduce_all(tf.math.is_finite(vector))
        summed = summands if job.plan.replicas == 1 else _unpack(vector, weights, gradients.statistics)
        return update.apply(summed, finite, before, loss_scale), timestamps

    return compute


def _in_one_program(job: Job, state: TrainState, feed: Feed) -> _Compute:
    """Makes a step of one replica that is one XLA program."""
    gradients = Gradients(job, state, feed)
    update, iterations = Update(job, state, gradients), state.optimizer.iterations

    @tf.function(jit_compile=True, autograph=False)
    def step(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None) -> tf.Tensor:
        seed_random_layers(state, job.config.seed, 0, 1)
        row = update.apply_finite(*gradients.compute(batch, resident, tf.identity(state.loss_scale)))
        iterations.assign_add(tf.cast(row[3], iterations.dtype))
        return row

    return lambda batch, resident, replica_id: (step(batch, resident), [])


def _in_two_programs(job: Job, state: TrainState, feed: Feed) -> _Compute:
    """Makes a step of several replicas: an XLA program, the all-reduce, and another XLA program."""
    gradients = Gradients(job, state, feed)
    update, weights = Update(job, state, gradients), state.model.trainable_variables
    iterations = state.optimizer.iterations

    @tf.function(jit_compile=True, autograph=False)
    def forward_backward(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                         replica_id: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        seed_random_layers(state, job.config.seed, replica_id, job.plan.replicas)
        summands, before = gradients.compute(batch, resident, tf.identity(state.loss_scale))
        return _pack(summands), before

    @tf.function(jit_compile=True, autograph=False)
    def finish(vector: tf.Tensor, before: list[tf.Tensor]) -> tf.Tensor:
        return update.apply_finite(_unpack(vector, weights, gradients.statistics), before)

    def compute(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                replica_id: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        vector, before = forward_backward(batch, resident, replica_id)
        vector, timestamps = _all_reduce(job, vector)
        row = finish(vector, before)
        iterations.assign_add(tf.cast(row[3], iterations.dtype))  # TensorFlow aggregates it, which XLA can't
        return row, timestamps

    return compute


def sums_vectors(job: Job, state: TrainState) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes a function of a number that does as many all-reduces of a vector as long as a step's, and nothing else."""
    length = sum(tf.TensorShape(variable.shape).num_elements() for variable in state.model.trainable_variables)

    def reduce_once() -> tf.Tensor:
        return _all_reduce(job, tf.ones([length]))[0][0]

    def add_one(count: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return count + 1, total + job.runtime.strategy.experimental_local_results(
            job.runtime.strategy.run(reduce_once))[0]

    @tf.function(autograph=False)
    def repeat(times: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda count, _: count < times, add_one, (tf.constant(0), tf.zeros([])))[1]

    return repeat


def _all_reduce(job: Job, vector: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """(the sum of a vector over all replicas, on several workers the times before and after)."""
    several_workers = job.runtime.workers > 1
    timestamps = [_timestamp_of(vector)] if several_workers else []
    if job.plan.replicas > 1:
        vector = tf.distribute.get_replica_context().all_reduce("SUM", vector)
    return vector, timestamps + ([_timestamp_of(vector)] if several_workers else [])


def _timestamp_of(vector: tf.Tensor) -> tf.Tensor:
    """The time at which a vector is computed, in seconds since 1970. From a GPU, one number travels to the host."""
    first = vector[0]  # on the device of the vector
    with tf.device("/device:CPU:0"), tf.control_dependencies([tf.identity(first)]):
        return tf.timestamp()


def _all_ids(ids: tf.Tensor, replica_id: int, plan: Plan, context: Any) -> tf.Tensor:
    """The ids of the global batch, on every replica: those that each replica really took from its pipeline."""
    if plan.replicas == 1:
        return ids
    before = replica_id * plan.per_replica_batch_size
    after = (plan.replicas - 1 - replica_id) * plan.per_replica_batch_size
    # As float64, which holds them exactly: neither padding nor the all-reduce's own split has a GPU kernel for int64.
    own = tf.concat([tf.zeros([before], tf.float64), tf.cast(ids, tf.float64), tf.zeros([after], tf.float64)], 0)
    return tf.cast(context.all_reduce("SUM", own), tf.int64)
