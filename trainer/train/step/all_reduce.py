"""Part 2 of a step: the one sum over all replicas. What crosses replicas travels as one vector, outside XLA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trainer.process.tf_import import tf
from trainer.train.step.gradients import Summands, as_float32

if TYPE_CHECKING:
    import keras

    from trainer.plan import Job, Plan
    from trainer.train.state import TrainState


def pack(summands: Summands, job: Job) -> list[tf.Tensor]:
    """Puts summands together for the sum over all replicas.

    Args:
        summands: A replica's.
        job: What the run trains; its `all_reduce` and its number of replicas count.

    Returns:
        One float32 vector of all; with `--all_reduce=bfloat16` one of the gradients in bfloat16, and one in float32 of
        the others: counts of more than 256 aren't exact in 8 bits.
    """
    gradients, others = as_float32(summands.gradients), as_float32([*summands.statistics, summands.sums])
    if job.config.all_reduce == "float32" or job.plan.replicas == 1:
        return [_joined([*gradients, *others])]
    return [tf.cast(_joined(gradients), tf.bfloat16), _joined(others)]


def _joined(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def unpack(vectors: Sequence[tf.Tensor], weights: Sequence[keras.Variable],
            statistics: Sequence[keras.Variable]) -> Summands:
    """Takes apart what `pack` put together.

    Args:
        vectors: As `pack` returns them.
        weights: The model's trainable weights.
        statistics: The statistics that were packed.

    Returns:
        The `Summands`, all float32.
    """
    shapes = [*(tuple(variable.shape) for variable in (*weights, *statistics)), (3,)]
    lengths = [tf.TensorShape(shape).num_elements() for shape in shapes]
    parts = (tf.split(vectors[0], lengths) if len(vectors) == 1 else
             [*tf.split(tf.cast(vectors[0], tf.float32), lengths[:len(weights)]),
              *tf.split(vectors[1], lengths[len(weights):])])
    *tensors, sums = (tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True))
    return Summands(tensors[:len(weights)], tensors[len(weights):], sums)


def sums_vectors(job: Job, state: TrainState) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes a function of a number that does as many all-reduces of a vector as long as a step's, and nothing else."""
    length = sum(tf.TensorShape(variable.shape).num_elements() for variable in state.model.trainable_variables)

    def reduce_once() -> tf.Tensor:
        return tf.cast(all_reduce(job, [tf.ones([length], job.config.all_reduce)])[0][0][0], tf.float32)

    def add_one(count: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return count + 1, total + job.runtime.strategy.experimental_local_results(
            job.runtime.strategy.run(reduce_once))[0]

    @tf.function(autograph=False)
    def repeat(times: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda count, _: count < times, add_one, (tf.constant(0), tf.zeros([])))[1]

    return repeat


def all_reduce(job: Job, vectors: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Sums vectors over all replicas.

    Args:
        job: What the run trains.
        vectors: As `pack` returns them.

    Returns:
        (the sums, on several workers the times before and after the first: float64 scalars, seconds since 1970).
    """
    several_workers = job.runtime.workers > 1
    timestamps = [_timestamp_of(vectors[0])] if several_workers else []
    if job.plan.replicas > 1:
        context = tf.distribute.get_replica_context()
        vectors = [context.all_reduce("SUM", vector) for vector in vectors]
    return vectors, timestamps + ([_timestamp_of(vectors[0])] if several_workers else [])


def _timestamp_of(vector: tf.Tensor) -> tf.Tensor:
    """The time at which a vector is computed, in seconds since 1970. From a GPU, one number travels to the host."""
    first = vector[0]  # on the device of the vector
    with tf.device("/device:CPU:0"), tf.control_dependencies([tf.identity(first)]):
        return tf.timestamp()


def all_ids(ids: tf.Tensor, replica_id: int, plan: Plan, context: Any) -> tf.Tensor:
    """The ids of the global batch, on every replica: those that each replica really took from its pipeline.

    Args:
        ids: int64 [rows], the replica's own.
        replica_id: The replica's number.
        plan: The steps of the run.
        context: The replica's context of TensorFlow.

    Returns:
        int64 [batch].
    """
    if plan.replicas == 1:
        return ids
    shape = plan.passes, plan.per_replica_pass_size
    before, after = replica_id * shape[1], (plan.replicas - 1 - replica_id) * shape[1]
    # As float64, which holds them exactly: neither padding nor the all-reduce's own split has a GPU kernel for int64.
    own = tf.concat([tf.zeros([shape[0], before], tf.float64), tf.reshape(tf.cast(ids, tf.float64), shape),
                     tf.zeros([shape[0], after], tf.float64)], 1)
    return tf.cast(context.all_reduce("SUM", tf.reshape(own, [-1])), tf.int64)
