"""The training step on every replica, and the loop over steps on the device. No input or output.

One step, on replica r of R:

    1. forward and backward on its part of the global batch            one XLA program where XLA is on
    2. one all-reduce that sums everything that crosses replicas       outside XLA
    3. unscale, check that all is finite, clip                         the same on every replica
    4. update, if all is finite                                        another XLA program

What crosses replicas travels as one vector: all gradients, batch norm's statistics, the sums for the metrics. The loss
of a replica is the sum over its own examples divided by the *global* batch size, so the sum over replicas is the
gradient of the global mean. Statistics are averaged in every step, so they are the same on all replicas whenever a run
evaluates, saves or exports.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.data.augment.apply import augment_batch
from trainer.process.tf_import import tf
from trainer.train.losses import example_losses

if TYPE_CHECKING:
    import keras

    from trainer.data.pipeline import Feed
    from trainer.data.split import Batch
    from trainer.plan import Job, Plan
    from trainer.train.state import TrainState

_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd")
_CALLS = 2**10  # most calls of a random layer in a step
_COUNTS = 2**31 // _CALLS  # number of counts until the key changes
_GROW_LOSS_SCALE_AFTER = 2_000  # steps, as in Micikevicius et al. 2018, "Mixed precision training"

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


TrainLoop = Callable[[tf.Tensor], StepRecords]


def _pack(tensors: Sequence[Any]) -> tf.Tensor:
    """Tensors to one float32 vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in _float32(tensors)], 0)


def _unpack(vector: tf.Tensor, like: Sequence[tf.Tensor | keras.Variable]) -> list[tf.Tensor]:
    """The parts of a vector, in the shapes of the tensors that were packed."""
    shapes = [tuple(tensor.shape) for tensor in like]
    parts = tf.split(vector, [tf.TensorShape(shape).num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


def _float32(tensors: Sequence[Any]) -> list[tf.Tensor]:
    return [tf.cast(tensor, tf.float32) for tensor in tensors]


def _may_write(graph: Any, variable: keras.Variable) -> bool:
    """Whether an operation in the graph of a traced function may change a variable: any that isn't known to read it."""
    handle = variable.value.handle
    captured = [inside for outside, inside in graph.captures if outside is handle]
    return any(op.type not in _READS for inside in captured for op in inside.consumers())


def make_train_loop(job: Job, state: TrainState, feed: Feed) -> TrainLoop:
    """Makes the function that trains.

    Returns:
        A function of a number of steps (int32 scalar tensor) that does so many steps and returns their `StepRecords`.
    """
    replica_step = _make_replica_step(job, state, feed)
    strategy, ledger, several_workers = job.runtime.strategy, job.config.ledger, job.runtime.workers > 1

    @tf.function
    def train(steps: tf.Tensor) -> StepRecords:
        rows = tf.TensorArray(tf.float32, steps, element_shape=[6])
        ids = tf.TensorArray(tf.int64, steps, element_shape=[job.plan.batch_size if ledger else 0])
        times = tf.TensorArray(tf.float64, steps, element_shape=[2 if several_workers else 0])
        for index in tf.range(steps):
            # All replicas return the same values; read the first.
            row, used, timestamps = (strategy.experimental_local_results(result)[0]
                                     for result in strategy.run(replica_step))
            rows, ids, times = rows.write(index, row), ids.write(index, used), times.write(index, timestamps)
        loss, correct, learning_rate, finite, examples, scale = tf.unstack(rows.stack(), axis=1)
        return StepRecords(loss, correct, learning_rate, finite > 0, examples, scale,
                           ids.stack() if ledger else None, times.stack() if several_workers else None)

    return train


def _make_forward_backward(job: Job, state: TrainState, feed: Feed) -> tuple[Any, list[keras.Variable]]:
    """Makes part 1 of a step.

    Returns:
        (a function of a `Batch`, the replica's resident (images, labels) or None, and the loss scale to (float32
        vector: gradients, averaged statistics, sums of loss, correct and examples; the statistics before the step);
        the list of the statistics that the vector holds, filled when the function is traced).
    """
    model, config, plan, runtime = state.model, job.config, job.plan, job.runtime
    statistics: list[keras.Variable] = []

    @tf.function(jit_compile=runtime.xla)
    def forward_backward(batch: Batch, resident: tuple[tf.Tensor, tf.Tensor] | None,
                         loss_scale: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        images, labels = ((batch.images, batch.labels) if resident is None else
                          (tf.gather(whole, batch.ids) for whole in resident))
        labels = tf.cast(labels, tf.int32)  # pyright: ignore[reportArgumentType, reportCallIssue]  None only if resident
        images, target = augment_batch(images, labels, batch.seeds, feed.augment,  # pyright: ignore[reportArgumentType]
                                       by_comparison=runtime.kind.avoids_scatters and runtime.xla)
        before = [tf.convert_to_tensor(variable) for variable in state.buffers]
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            # Known once the model has been traced; a frozen layer's weights are only read, and needn't travel.
            written = [_may_write(tf.compat.v1.get_default_graph(), variable) for variable in state.buffers]
            losses = example_losses(target, logits, config.label_smoothing, feed.class_weights)
            if batch.mask is not None:
                losses *= batch.mask
            loss = tf.reduce_sum(losses) / plan.batch_size
            # Every replica computes the whole of Keras's regularization, and the all-reduce sums it.
            objective = loss + tf.add_n([tf.zeros([]), *_float32(model.losses)]) / plan.replicas
            scaled = objective * loss_scale
        gradients = tape.gradient(scaled, model.trainable_variables,
                                  unconnected_gradients=tf.UnconnectedGradients.ZERO)
        is_correct = tf.equal(tf.argmax(logits, 1, tf.int32), target.dominant())
        examples = tf.constant(float(plan.per_replica_batch_size))
        if batch.mask is not None:
            is_correct, examples = is_correct & (batch.mask > 0), tf.reduce_sum(batch.mask)
        correct = tf.math.count_nonzero(is_correct, dtype=tf.float32)
        statistics[:] = itertools.compress(state.buffers, written)
        averaged_statistics = [statistic / plan.replicas for statistic in _float32(statistics)]
        vector = _pack([*gradients, *averaged_statistics, tf.stack([loss, correct, examples])])
        return vector, list(itertools.compress(before, written))

    return forward_backward, statistics


def _make_replica_step(job: Job, state: TrainState, feed: Feed) -> Callable[[], tuple[tf.Tensor, ...]]:
    """Makes a step on a replica: a function to (float32 [6] for `StepRecords`, ids, time stamps)."""
    config, plan, optimizer, weights = job.config, job.plan, state.optimizer, state.model.trainable_variables
    forward_backward, statistics = _make_forward_backward(job, state, feed)
    several_workers = job.runtime.workers > 1

    @tf.function(jit_compile=job.runtime.xla)
    def update(gradients: list[tf.Tensor]) -> None:
        optimizer.update(gradients, weights)

    def replica_step() -> tuple[tf.Tensor, ...]:
        # 1. forward and backward
        context = tf.distribute.get_replica_context()
        # A constant while tracing: under a strategy this function is traced once per replica.
        replica_id = tf.get_static_value(context.replica_id_in_sync_group) or 0
        local = replica_id % len(feed.iterators)
        batch = next(feed.iterators[local])
        _seed_random_layers(state, config.seed, replica_id, plan.replicas)
        loss_scale = tf.identity(state.loss_scale)
        vector, before = forward_backward(batch, feed.resident[local], loss_scale)
        # 2. one all-reduce
        timestamps = [_timestamp_of(vector)] if several_workers else []
        if plan.replicas > 1:
            vector = context.all_reduce("SUM", vector)
        timestamps += [_timestamp_of(vector)] if several_workers else []
        *tensors, sums = _unpack(vector, [*weights, *statistics, tf.zeros([3])])
        # 3. unscale, check, clip: after the all-reduce, so every replica skips the same steps
        gradients = [tensor / loss_scale for tensor in tensors[:len(weights)]]
        finite = tf.reduce_all(tf.math.is_finite(vector))
        learning_rate = tf.identity(optimizer.learning_rate)
        if config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, config.clip_norm)
        # 4. update; nothing in this branch crosses replicas
        if finite:
            update(gradients)
        for statistic, old, new in zip(statistics, before, tensors[len(weights):], strict=True):
            statistic.value.assign(tf.where(finite, tf.cast(new, old.dtype), old))
        optimizer.iterations.assign_add(tf.cast(finite, optimizer.iterations.dtype))
        _advance_counters(state, finite)
        if job.runtime.precision == "float16":
            _update_loss_scale(state, finite)
        used = _all_ids(batch.ids, replica_id, plan, context) if config.ledger else tf.zeros([0], tf.int64)
        loss, correct, examples = tf.unstack(sums)
        loss *= plan.batch_size / examples  # the mean over the examples that could be read
        row = tf.stack([loss, correct, learning_rate, tf.cast(finite, tf.float32), examples, loss_scale])
        return row, used, tf.cast(timestamps, tf.float64)

    return replica_step


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


def _seed_random_layers(state: TrainState, seed: int, replica_id: int, replicas: int) -> None:
    """Sets the states of random layers, such as dropout, to what follows from (seed, layer, step, replica).

    Keras would give every replica the same masks, and the same masks again after a resume, since its checkpoints don't
    hold these states. A state is (key, count), and each call of a layer uses a count that is one higher than that of
    the call before: so counts of different steps and replicas are 1,024 apart.
    """
    count = state.step * replicas + replica_id
    turn = tf.constant(0, tf.int64)
    if state.bit_versions["draws"] > 1:
        turn, count = count // _COUNTS, count % _COUNTS * _CALLS  # pyright: ignore[reportOperatorIssue]  not in the stub
    for layer, variable in enumerate(state.random_states):
        key = (seed * 0x9E3779B9 + layer * 0x85EBCA6B + 1) % 2**31
        variable.value.assign(tf.cast(tf.stack([(key + turn * 0xC2B2AE3D) % 2**31, count]), variable.dtype))


def _advance_counters(state: TrainState, finite: tf.Tensor) -> None:
    """Counts a step, and counts it as skipped if it isn't finite."""
    state.step.assign_add(tf.constant(1, tf.int64))
    state.skipped.assign_add(tf.cast(not finite, tf.int64))


def _update_loss_scale(state: TrainState, finite: tf.Tensor) -> None:
    """Halves the loss scale after an overflow; doubles it after 2,000 finite steps."""
    steps = (state.finite_steps + 1) * tf.cast(finite, tf.int64)
    grown = steps >= _GROW_LOSS_SCALE_AFTER
    scale = tf.where(finite, state.loss_scale * tf.where(grown, 2.0, 1.0), state.loss_scale / 2.0)
    state.loss_scale.assign(tf.clip_by_value(scale, 1.0, 2.0**24))
    state.finite_steps.assign(tf.where(grown, tf.zeros_like(steps), steps))
