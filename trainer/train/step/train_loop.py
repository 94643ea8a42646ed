"""The training step on every replica, and the loop over steps on the device. No input or output.

One step, on replica r of R:

    1. forward and backward on its part of the global batch (gradients.py)
    2. one all-reduce that sums everything that crosses replicas, outside XLA (all_reduce.py)
    3. unscale, check that all is finite, clip, update (update.py): the same on every replica

On GPUs 1 and 3 are an XLA program each, on one replica a single one together; on CPUs, where XLA is slower, neither is.
What crosses replicas travels as one vector: all gradients, batch norm's statistics, the sums for the metrics.
Statistics are averaged in every step, so they are the same on all replicas whenever a run evaluates, saves or exports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.process.tf_import import tf
from trainer.train.step.all_reduce import all_ids, all_reduce, pack, unpack
from trainer.train.step.gradients import Gradients, Summands
from trainer.train.step.random_layers import seed_random_layers
from trainer.train.step.update import Update

if TYPE_CHECKING:
    from trainer.data.pipeline import Feed
    from trainer.data.split import Batch
    from trainer.plan import Job
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
        input_wait: float64 [n], how long each step waited for its batch with nothing else to do, in seconds, on this
            worker's first replica; None where it isn't known: on GPUs, whose kernels run behind the host, and where
            images are resident.
        gradient_norm: float32 [n], the global norm of the gradients before clipping; None where it isn't worked out.
    """

    loss: _Array
    correct: _Array
    learning_rate: _Array
    finite: _Array
    examples: _Array
    loss_scale: _Array
    ids: _Array | None
    times: _Array | None
    input_wait: _Array | None = None
    gradient_norm: _Array | None = None


# A function of a batch as `Gradients.compute` takes it, resident (images, labels) or None, and the replica's number to
# (float32 [6 or 7] for `StepRecords`, time stamps, empty for one worker).
_Compute = Callable[["Batch | tf.Tensor", tuple[tf.Tensor, tf.Tensor] | None, int],
                    tuple[tf.Tensor, list[tf.Tensor]]]


class TrainLoop:
    """The function that trains: a number of steps to their `StepRecords`.

    Args:
        job: What the run trains.
        state: The state that each step changes.
        feed: What training reads.
        side: Height and width in pixels to which images are made smaller; None: they stay as they are.

    Attributes:
        side: The argument.
    """

    def __init__(self, job: Job, state: TrainState, feed: Feed, side: int | None = None) -> None:
        self.side = side
        replica_step = _make_replica_step(job, state, feed, Gradients(job, state, feed, side))
        strategy, ledger, several_workers = job.runtime.strategy, job.config.ledger, job.runtime.workers > 1
        self._positions = feed.positions
        watches_input = _watches_input(job, feed)
        self._specs = [tf.TensorSpec([], tf.int32), self._positions.spec if self._positions else []]

        @tf.function(input_signature=self._specs, autograph=False)
        def train(steps: tf.Tensor, positions: list[tf.Tensor]) -> StepRecords:
            # An array of records for each of `StepRecords`' sources that this run has.
            arrays = [tf.TensorArray(tf.float32, steps, element_shape=[7 if job.config.knows_gradient_norm else 6])]
            arrays += [tf.TensorArray(tf.int64, steps, element_shape=[job.plan.batch_size])] if ledger else []
            arrays += [tf.TensorArray(tf.float64, steps, element_shape=[2])] if several_workers else []
            arrays += [tf.TensorArray(tf.float64, steps, element_shape=[])] if watches_input else []

            def step(index: tf.Tensor, *state: Any) -> tuple[Any, ...]:
                # All replicas return the same values; read the first.
                results = [strategy.experimental_local_results(result)[0]
                           for result in strategy.run(replica_step, (index, positions))]
                *arrays, done = state if watches_input else (*state, None)
                if watches_input:  # the batch was there at results[-1], the step before was done at `done`
                    results[-1] = tf.maximum(results[-1] - done, 0.0)
                written = [array.write(index, result) for array, result in zip(arrays, results, strict=True)]
                return index + 1, *written, *([_stamp_after(results[0])] if watches_input else [])

            begin = (tf.constant(0), *arrays, *([tf.timestamp()] if watches_input else []))
            _, *state = tf.while_loop(lambda index, *_: index < steps, step, begin)
            arrays = state[:len(arrays)]
            rows, *others = [array.stack() for array in arrays]
            loss, correct, learning_rate, finite, examples, scale, *norm = tf.unstack(rows, axis=1)
            return StepRecords(loss, correct, learning_rate, finite > 0, examples, scale,
                               others.pop(0) if ledger else None, others.pop(0) if several_workers else None,
                               others.pop(0) if watches_input else None,
                               norm[0] if norm else None)

        self.function = train

    def __call__(self, steps: int) -> StepRecords:
        """Does so many steps."""
        return self.function(tf.constant(steps, tf.int32), self._positions.take(steps) if self._positions else [])

    def trace(self) -> Any:
        """The loop's concrete function, whose graph shows what a step consists of."""
        return self.function.get_concrete_function(*self._specs)


def _watches_input(job: Job, feed: Feed) -> bool:
    """Whether a step notes how long it waited for its batch."""
    return bool(feed.iterators) and not job.runtime.kind.cuda


def _stamp_after(*tensors: tf.Tensor) -> tf.Tensor:
    """When tensors are known, in seconds since 1970: float64 []."""
    with tf.control_dependencies(tensors):
        return tf.timestamp()


def _make_replica_step(job: Job, state: TrainState, feed: Feed,
                       gradients: Gradients) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Makes a step on a replica: a function of the step's number in the call, and of what `DevicePositions` gave, to
    (float32 [6 or 7] for `StepRecords`, with --ledger the ids, on several workers the time stamps, where it is watched
    when the batch was there)."""
    runtime = job.runtime
    fuses = runtime.xla and runtime.kind.fuses
    compute = (_in_two_programs if fuses and job.plan.replicas > 1 else _in_one_program if fuses else _in_parts)(
        job, state, gradients)

    def replica_step(index: tf.Tensor, positions: list[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        context = tf.distribute.get_replica_context()
        # A constant while tracing: under a strategy this function is traced once per replica.
        replica_id = int(tf.get_static_value(context.replica_id_in_sync_group) or 0)
        local = replica_id % len(feed.resident)
        batch = positions[local][index] if positions else next(feed.iterators[local])
        there = [_stamp_after(batch.ids)] if _watches_input(job, feed) else []
        row, timestamps = compute(batch, feed.resident[local], replica_id)
        used = ([all_ids(batch[0] if positions else batch.ids, replica_id, job.plan, context)]
                if job.config.ledger else [])
        return row, *used, *([tf.cast(timestamps, tf.float64)] if timestamps else []), *there

    return replica_step


def _program(state: TrainState, xla: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a part 1 a function of TensorFlow's; not where it crosses replicas, which nothing inside a function may."""
    return _as_it_is if state.crosses_replicas else tf.function(jit_compile=xla, autograph=False)


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _in_parts(job: Job, state: TrainState, gradients: Gradients) -> _Compute:
    """Makes a step whose update a branch skips; with XLA, a program before the all-reduce and one for the update."""
    update, weights = Update(job, state, gradients), state.model.trainable_variables

    @_program(state, job.runtime.xla)
    def forward_backward(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                         loss_scale: tf.Tensor) -> tuple[list[tf.Tensor], Summands | None, list[tf.Tensor]]:
        summands, before = gradients.compute(batch, resident, loss_scale)
        return pack(summands, job), summands if job.plan.replicas == 1 else None, before  # no gradient leaves twice

    def compute(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                replica_id: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        seed_random_layers(state, job.config.seed, replica_id, job.plan.replicas)
        loss_scale = tf.identity(state.loss_scale)
        vectors, summands, before = forward_backward(batch, resident, loss_scale)
        vectors, timestamps = all_reduce(job, vectors)
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(vector)) for vector in vectors])
        summed = summands or unpack(vectors, weights, gradients.statistics)
        return update.apply(summed, finite, before, loss_scale), timestamps

    return compute


def _in_one_program(job: Job, state: TrainState, gradients: Gradients) -> _Compute:
    """Makes a step of one replica that is one XLA program."""
    update, iterations = Update(job, state, gradients), state.optimizer.iterations

    @tf.function(jit_compile=True, autograph=False)
    def step(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None) -> tf.Tensor:
        seed_random_layers(state, job.config.seed, 0, 1)
        row = update.apply_finite(*gradients.compute(batch, resident, tf.identity(state.loss_scale)))
        iterations.assign_add(tf.cast(row[3], iterations.dtype))
        return row

    return lambda batch, resident, replica_id: (step(batch, resident), [])


def _in_two_programs(job: Job, state: TrainState, gradients: Gradients) -> _Compute:
    """Makes a step of several replicas: an XLA program, the all-reduce, and another XLA program."""
    update, weights = Update(job, state, gradients), state.model.trainable_variables
    iterations = state.optimizer.iterations

    @_program(state, True)
    def forward_backward(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                         replica_id: int) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        seed_random_layers(state, job.config.seed, replica_id, job.plan.replicas)
        summands, before = gradients.compute(batch, resident, tf.identity(state.loss_scale))
        return pack(summands, job), before

    @tf.function(jit_compile=True, autograph=False)
    def finish(vectors: list[tf.Tensor], before: list[tf.Tensor]) -> tf.Tensor:
        return update.apply_finite(unpack(vectors, weights, gradients.statistics), before)

    def compute(batch: Batch | tf.Tensor, resident: tuple[tf.Tensor, tf.Tensor] | None,
                replica_id: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        vectors, before = forward_backward(batch, resident, replica_id)
        vectors, timestamps = all_reduce(job, vectors)
        row = finish(vectors, before)
        iterations.assign_add(tf.cast(row[3], iterations.dtype))  # TensorFlow aggregates it, which XLA can't
        return row, timestamps

    return compute
