"""Order → read → batch → prefetch: one plain tf.data pipeline and iterator for each replica.

Not a distributed iterator: that one halves training speed on CPUs, even if the batch goes unused. Each
replica reads its own rows of every global batch, so nothing needs to be split or sharded afterwards.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data import order, pictures
from trainer.data.batch import Batch, WeighedBatch
from trainer.errors import UsageError

_PREFETCH = 4
_MOST_BYTES = 2**30  # of pictures that go on a GPU unasked
_BLOCK = 2**16  # examples whose order is worked out at once


class Feed(NamedTuple):
    """What training reads.

    iterators: One over `Batch` for each local replica. resident: For each its split's (images, labels) on its
    device, or None where batches bring them. augment: What is left of `--augment` to be done on the device.
    class_weights: float32 [classes], by which losses are multiplied, or None.
    """

    iterators: list
    resident: list
    augment: tuple[str, ...]
    class_weights: np.ndarray | None


def open_feed(data, config, plan, first_step, runtime):
    """Opens the pipelines of this process's replicas.

    Args:
        data: The `Dataset`.
        config: The run's `Config`.
        plan: The run's `Plan`.
        first_step: Where the run goes on: a seek, nothing is replayed.
        runtime: The `Runtime`.

    Returns:
        The `Feed`, whose iterators go from `first_step` to the end of the run.
    """
    split = data.train
    stream, threads = split.order(config.seed, plan.batch_size), _threads(split, runtime)
    resident = [split.resident(device) if _belongs_on(device, split, config.input) else None
                for device in runtime.devices]

    def batches(places, on_device):
        if on_device is not None:
            return places.map(lambda ids, seeds: Batch(ids, seeds, None, None))
        return split.read(places, threads)

    iterators = [_start(batches(_places(stream, plan, replica, first_step), there), threads, device)
                 for replica, device, there in zip(runtime.replica_numbers, runtime.devices, resident, strict=True)]
    return Feed(iterators, resident, on_device(config.augment, split),
                data.balanced_weights() if config.class_weights == "balanced" else None)


def on_device(augment, split):
    """What is left of `--augment` once a split's pictures have been read."""
    return tuple(name for name in augment if name not in split.done)


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
    threads = _threads(split, runtime)

    def weigh(batch, weights):
        sound = weights if batch.sound is None else weights * batch.sound
        return WeighedBatch(batch.images, batch.labels, sound, weights - sound)

    def data_of(replica):
        mine = places[:, replica]
        ids, weights = np.minimum(mine, split.size - 1), (mine < split.size).astype(np.float32)
        data = split.read(tf.data.Dataset.from_tensor_slices((ids, np.zeros(ids.shape, np.uint32))).repeat(), threads,
                          training=False)
        return tf.data.Dataset.zip(data, tf.data.Dataset.from_tensor_slices(weights).repeat()).map(weigh)

    iterators = [_start(data_of(replica), threads, device)
                 for replica, device in zip(runtime.replica_numbers, runtime.devices, strict=True)]
    return iterators, steps


def _places(stream, plan, replica, first_step):
    """A data set of (ids int64 [rows], seeds uint32 [rows]), an element a step."""
    per_block = max(1, _BLOCK // plan.batch_size)

    def block(number):
        begin = first_step + int(number) * per_block
        end = min(begin + per_block, plan.total_steps)
        return order.batches(stream, plan.batch_size, plan.replicas, replica, begin, end)

    def slices(number):
        ids, seeds = tf.numpy_function(block, [number], (tf.int64, tf.uint32))
        return tf.data.Dataset.from_tensor_slices((tf.ensure_shape(ids, [None, plan.rows]),
                                                   tf.ensure_shape(seeds, [None, plan.rows])))

    blocks = -(-(plan.total_steps - first_step) // per_block)
    return tf.data.Dataset.range(blocks).flat_map(slices)


def _belongs_on(device, split, wanted):
    """Whether a split's pictures are to lie on a device."""
    if wanted == "device" and split.bytes is None:
        raise UsageError("--input=device needs pictures that lie in memory; those of this --dataset are in files",
                         "leave --input out")
    return wanted == "device" or (wanted == "auto" and ":GPU:" in device and (split.bytes or math.inf) <= _MOST_BYTES)


def _threads(split, runtime):
    """How many threads each of this process's pipelines gets."""
    # Gathering from memory is cheap: more threads would only take cores from the training step.
    return max(1, pictures.cores() // len(runtime.devices)) if split.decodes else 1


def _start(data, threads, device):
    """An iterator whose elements wait on the replica's device."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.autotune.enabled = False
    data = data.with_options(options)
    if ":GPU:" in device:
        data = data.apply(tf.data.experimental.prefetch_to_device(device, _PREFETCH))
    else:
        data = data.prefetch(_PREFETCH)
    return iter(data)
