"""Order → read → batch → prefetch: one plain tf.data pipeline and iterator for each replica.

Not a distributed iterator: that one halves training speed on CPUs, even if the batch goes unused. Each
replica reads its own rows of every global batch, so nothing needs to be split or sharded afterwards.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data import order

_PREFETCH = 4
_BLOCK = 2**16  # examples whose order is worked out at once


class Batch(NamedTuple):
    """A replica's rows of a training step.

    ids int64 [n], seeds uint32 [n], images uint8 [n, height, width, channels], labels int32 [n].
    """

    ids: tf.Tensor
    seeds: tf.Tensor
    images: tf.Tensor
    labels: tf.Tensor


class WeighedBatch(NamedTuple):
    """A replica's rows of an evaluation step: as in `Batch`; weights float32 [n], 0 for padding."""

    images: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor


def training_iterators(split, plan, seed, first_step, runtime):
    """Opens the pipelines of this process's replicas.

    Args:
        split: The training `Split`.
        plan: The run's `Plan`.
        seed: The run's seed.
        first_step: Where the run goes on: a seek, nothing is replayed.
        runtime: The `Runtime`.

    Returns:
        One iterator over `Batch` for each local replica, from `first_step` to the end of the run.
    """
    images, labels = _on_host(split)

    def read(ids, seeds):
        return Batch(ids, seeds, tf.gather(images, ids), tf.gather(labels, ids))

    return [_start(_order_of(plan, seed, replica, first_step).map(read), device)
            for replica, device in zip(runtime.replica_numbers, runtime.devices, strict=True)]


def evaluation_iterators(split, rows, runtime):
    """Opens pipelines that go over a split again and again, padded so that every batch is full.

    Args:
        split: The `Split`.
        rows: Rows of a replica's batch.
        runtime: The `Runtime`.

    Returns:
        (one iterator over `WeighedBatch` for each local replica, steps in one pass over the split).
    """
    steps = -(-split.size // (rows * runtime.replicas))
    places = np.arange(steps * rows * runtime.replicas).reshape(steps, runtime.replicas, rows)
    images, labels = _on_host(split)

    def read(ids, weights):
        return WeighedBatch(tf.gather(images, ids), tf.gather(labels, ids), weights)

    def data_of(replica):
        mine = places[:, replica]
        pair = np.minimum(mine, split.size - 1), (mine < split.size).astype(np.float32)
        return tf.data.Dataset.from_tensor_slices(pair).repeat().map(read)

    iterators = [_start(data_of(replica), device)
                 for replica, device in zip(runtime.replica_numbers, runtime.devices, strict=True)]
    return iterators, steps


def _order_of(plan, seed, replica, first_step):
    """A data set of (ids int64 [rows], seeds uint32 [rows]), an element a step."""
    per_block = max(1, _BLOCK // plan.batch_size)

    def block(number):
        begin = first_step + int(number) * per_block
        end = min(begin + per_block, plan.total_steps)
        return order.batches(seed, plan.examples, plan.batch_size, plan.replicas, replica, begin, end)

    def slices(number):
        ids, seeds = tf.numpy_function(block, [number], (tf.int64, tf.uint32))
        return tf.data.Dataset.from_tensor_slices((tf.ensure_shape(ids, [None, plan.rows]),
                                                   tf.ensure_shape(seeds, [None, plan.rows])))

    blocks = -(-(plan.total_steps - first_step) // per_block)
    return tf.data.Dataset.range(blocks).flat_map(slices)


def _on_host(split):
    """The split as tensors that pipelines can capture without a copy in their graphs."""
    with tf.device("CPU:0"):
        return tf.constant(split.images), tf.constant(split.labels)


def _start(data, device):
    """An iterator whose elements wait on the replica's device."""
    options = tf.data.Options()
    # Gathering from memory is cheap: more threads would only take cores from the training step.
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    data = data.with_options(options)
    if ":GPU:" in device:
        data = data.apply(tf.data.experimental.prefetch_to_device(device, _PREFETCH))
    else:
        data = data.prefetch(_PREFETCH)
    return iter(data)
