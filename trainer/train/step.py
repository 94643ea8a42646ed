"""The training step on every replica, and the loop over steps on the device. No input or output.

One step, on replica r of R:

    1. forward and backward on its rows of the global batch            one XLA program where XLA is on
    2. one all-reduce that sums everything that crosses replicas       outside XLA
    3. unscale, check that all is finite, clip                        the same on every replica
    4. update, if it is                                                another XLA program

What crosses replicas travels as one vector: all gradients, batch norm's statistics, the sums for the
metrics. The loss of a replica is its sum over its own rows divided by the *global* batch, so the sum
over replicas is the gradient of the global mean. Statistics are averaged every step, so they are the
same everywhere whenever a run evaluates, saves or exports.
"""

import itertools
from typing import NamedTuple

from trainer.data.augment.apply import augment_batch
from trainer.process.tf_import import tf
from trainer.train.losses import example_losses

_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd")
_CALLS = 2**10  # of a random layer in a step, at most
_COUNTS = 2**31 // _CALLS  # then the key changes
_GROW_LOSS_SCALE_AFTER = 2_000  # steps, as in Micikevicius et al. 2018, "Mixed precision training"


class StepRecords(NamedTuple):
    """What n steps did, in order.

    Args:
        loss: float32 [n], the mean over the global batch.
        correct: float32 [n], how many of its examples were answered right.
        learning_rate: float32 [n].
        finite: bool [n], whether the update was applied.
        examples: float32 [n], how many of the batch could be read.
        loss_scale: float32 [n], by which the loss was multiplied.
        ids: int64 [n, batch], the examples in the order of the global batch; None without --ledger.
        times: float64 [n, 2], when this worker's own part of each step was done and when the all-reduce was, in
            seconds since 1970; None for one worker.
    """

    loss: tf.Tensor
    correct: tf.Tensor
    learning_rate: tf.Tensor
    finite: tf.Tensor
    examples: tf.Tensor
    loss_scale: tf.Tensor
    ids: tf.Tensor | None
    times: tf.Tensor | None


def _pack(tensors):
    """Tensors to one float32 vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in _float32(tensors)], 0)


def _unpack(vector, like):
    """The parts of a vector, in the shapes of what was packed."""
    shapes = [tuple(tensor.shape) for tensor in like]
    parts = tf.split(vector, [tf.TensorShape(shape).num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


def _float32(tensors):
    return [tf.cast(tensor, tf.float32) for tensor in tensors]


def _may_write(graph, variable):
    """Whether anything in the graph of a traced function may change a variable: all but reading it."""
    handle = variable.value.handle
    captured = [inside for outside, inside in graph.captures if outside is handle]
    return any(op.type not in _READS for inside in captured for op in inside.consumers())


def make_train_loop(job, state, feed):
    """Makes the function that trains.

    Args:
        job: The `Job`.
        state: The `TrainState`.
        feed: The `Feed`.

    Returns:
        A function of a number of steps (int32 scalar tensor) that does so many and returns `StepRecords`.
    """
    replica_step = _make_replica_step(job, state, feed)
    strategy, ledger, several_workers = job.runtime.strategy, job.config.ledger, job.runtime.workers > 1

    @tf.function
    def train(steps):
        rows = tf.TensorArray(tf.float32, steps, element_shape=[6])
        ids = tf.TensorArray(tf.int64, steps, element_shape=[job.plan.batch_size if ledger else 0])
        times = tf.TensorArray(tf.float64, steps, element_shape=[2 if several_workers else 0])
        for index in tf.range(steps):
            # All replicas return the same; the first local one's is read.
            row, used, timestamps = (strategy.experimental_local_results(result)[0]
                                     for result in strategy.run(replica_step))
            rows, ids, times = rows.write(index, row), ids.write(index, used), times.write(index, timestamps)
        loss, correct, learning_rate, finite, examples, scale = tf.unstack(rows.stack(), axis=1)
        return StepRecords(loss, correct, learning_rate, finite > 0, examples, scale,
                           ids.stack() if ledger else None, times.stack() if several_workers else None)

    return train


def _make_forward_backward(job, state, feed):
    """Makes part 1 of a step.

    Returns:
        (a function of a `Batch`, the replica's resident (images, labels) or None, and the loss scale to (float32
        vector: gradients, averaged statistics, sums of loss, correct and examples; the statistics before the step);
        the list of the statistics that the vector holds, filled when the function is traced).
    """
    model, config, plan, runtime = state.model, job.config, job.plan, job.runtime
    statistics = []

    @tf.function(jit_compile=runtime.xla)
    def forward_backward(batch, resident, loss_scale):
        images, labels = ((batch.images, batch.labels) if resident is None else
                          (tf.gather(whole, batch.ids) for whole in resident))
        labels = tf.cast(labels, tf.int32)
        images, target = augment_batch(images, labels, batch.seeds, feed.augment,
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
            # Keras's regularizers know nothing of replicas: each would add them whole.
            objective = loss + tf.add_n([tf.zeros([]), *_float32(model.losses)]) / plan.replicas
            scaled = objective * loss_scale
        gradients = tape.gradient(scaled, model.trainable_variables, unconnected_gradients="zero")
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


def _make_replica_step(job, state, feed):
    config, plan, optimizer, weights = job.config, job.plan, state.optimizer, state.model.trainable_variables
    forward_backward, statistics = _make_forward_backward(job, state, feed)
    several_workers = job.runtime.workers > 1

    @tf.function(jit_compile=job.runtime.xla)
    def update(gradients):
        optimizer.update(gradients, weights)

    def replica_step():
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
        # 3. unscale, check, clip: of what was reduced, so every replica skips the same steps
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
        loss *= plan.batch_size / examples  # of those that could be read, so that it can be compared
        row = tf.stack([loss, correct, learning_rate, tf.cast(finite, tf.float32), examples, loss_scale])
        return row, used, tf.cast(timestamps, tf.float64)

    return replica_step


def _timestamp_of(vector):
    """When a vector was there, in seconds since 1970. Of a GPU's, one number travels to the host to find out."""
    first = vector[0]  # taken where the vector is
    with tf.device("/device:CPU:0"), tf.control_dependencies([tf.identity(first)]):
        return tf.timestamp()


def _all_ids(ids, replica, plan, context):
    """The ids of the global batch, on every replica: what each of them really took from its pipeline."""
    if plan.replicas == 1:
        return ids
    before, after = replica * plan.per_replica_batch_size, (plan.replicas - 1 - replica) * plan.per_replica_batch_size
    # As float64, which holds them exactly: neither padding nor the all-reduce's own split has a GPU kernel for int64.
    own = tf.concat([tf.zeros([before], tf.float64), tf.cast(ids, tf.float64), tf.zeros([after], tf.float64)], 0)
    return tf.cast(context.all_reduce("SUM", own), tf.int64)


def _seed_random_layers(state, seed, replica, replicas):
    """Gives dropout and its like a state that follows from (seed, layer, step, replica).

    Keras would give every replica the same masks, and the same masks again after a resume, since its
    checkpoints don't hold these states. A state is (key, count), and each call of a layer draws with a count of its
    own, one higher than the call before: so counts of different steps and replicas lie 1,024 apart.
    """
    count = state.step * replicas + replica
    turn = tf.constant(0, tf.int64)
    if state.bit_versions["draws"] > 1:
        turn, count = count // _COUNTS, count % _COUNTS * _CALLS
    for layer, variable in enumerate(state.random_states):
        key = (seed * 0x9E3779B9 + layer * 0x85EBCA6B + 1) % 2**31
        variable.value.assign(tf.cast(tf.stack([(key + turn * 0xC2B2AE3D) % 2**31, count]), variable.dtype))


def _advance_counters(state, finite):
    """Counts a step, and that it was skipped if it was."""
    state.step.assign_add(tf.constant(1, tf.int64))
    state.skipped.assign_add(tf.cast(not finite, tf.int64))


def _update_loss_scale(state, finite):
    """Halves the loss scale after an overflow; doubles it after 2,000 finite steps."""
    steps = (state.finite_steps + 1) * tf.cast(finite, tf.int64)
    grown = steps >= _GROW_LOSS_SCALE_AFTER
    scale = tf.where(finite, state.loss_scale * tf.where(grown, 2.0, 1.0), state.loss_scale / 2.0)
    state.loss_scale.assign(tf.clip_by_value(scale, 1.0, 2.0**24))
    state.finite_steps.assign(tf.where(grown, tf.zeros_like(steps), steps))
