"""Order → read → batch → prefetch: one plain tf.data pipeline and iterator for each replica.

Not a distributed iterator: that one halves training speed on CPUs, even if the batch goes unused. Each
replica reads its own rows of every global batch, so nothing needs to be split or sharded afterwards.
"""

import math
import threading
from typing import NamedTuple

import numpy as np

from trainer.data import order
from trainer.data.augment.apply import left_for_device
from trainer.data.split import Batch, EvalBatch
from trainer.errors import UsageError
from trainer.process import cpu
from trainer.process.tf_import import tf

_PREFETCH = 4
_MOST_BYTES = 2**30  # of images that go on a GPU unasked
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


def open_feed(job, *, first_step):
    """Opens the pipelines of this process's replicas.

    Args:
        job: The `Job`.
        first_step: Where the run goes on: a seek, nothing is replayed.

    Returns:
        The `Feed`, whose iterators go from `first_step` to the end of the run.
    """
    config, plan, runtime, split = job.config, job.plan, job.runtime, job.data.train
    stream, threads = split.order(config.seed, plan.batch_size), _threads(split, runtime)
    blocks = _Blocks(stream, plan, first_step)
    lie_there = _lie_on_device(split, config.input, runtime)
    resident = [split.resident(device) if lie_there else None for device in runtime.devices]

    def batches(rows):
        if lie_there:
            return rows.map(lambda ids, seeds: Batch(ids, seeds, None, None))
        return split.read(rows, threads)

    iterators = [iterate(batches(blocks.rows_of(replica)), threads, device, runtime.kind)
                 for replica, device in zip(runtime.replica_ids, runtime.devices, strict=True)]
    return Feed(iterators, resident, left_for_device(config.augment, split),
                job.data.balanced_weights() if config.class_weights == "balanced" else None)


def evaluation_iterators(split, runtime, *, per_replica_batch_size):
    """Opens pipelines that go over a split again and again, padded so that every batch is full.

    Args:
        split: The `Split`.
        runtime: The `Runtime`.
        per_replica_batch_size: Rows of a replica's batch.

    Returns:
        (one iterator over `EvalBatch` for each local replica, steps in one pass over the split).
    """
    steps = -(-split.size // (per_replica_batch_size * runtime.replicas))
    positions = np.arange(steps * per_replica_batch_size * runtime.replicas)
    positions = positions.reshape(steps, runtime.replicas, per_replica_batch_size)
    threads = _threads(split, runtime)

    def weigh(batch, weights):
        readable = weights if batch.mask is None else weights * batch.mask
        return EvalBatch(batch.images, batch.labels, readable, weights - readable)

    def data_of(replica):
        own = positions[:, replica]
        ids, weights = np.minimum(own, split.size - 1), (own < split.size).astype(np.float32)
        data = split.read(tf.data.Dataset.from_tensor_slices((ids, np.zeros(ids.shape, np.uint32))).repeat(), threads,
                          training=False)
        return tf.data.Dataset.zip(data, tf.data.Dataset.from_tensor_slices(weights).repeat()).map(weigh)

    iterators = [iterate(data_of(replica), threads, device, runtime.kind)
                 for replica, device in zip(runtime.replica_ids, runtime.devices, strict=True)]
    return iterators, steps


class _Blocks:
    """The order of a run's examples, worked out a block of steps at a time, once for all replicas of this process.

    Args:
        stream: What has a `stream`, as `order.Shuffle` has.
        plan: The run's `Plan`.
        first_step: Where the run goes on.
    """

    def __init__(self, stream, plan, first_step):
        self._stream, self._plan, self._first_step = stream, plan, first_step
        self._steps = max(1, _BLOCK // plan.batch_size)
        self._lock, self._kept = threading.Lock(), {}

    def rows_of(self, replica):
        """A data set of a replica's (ids int64 [rows], seeds uint32 [rows]), an element a step."""
        plan = self._plan

        def slices(number):
            ids, seeds = tf.numpy_function(lambda number: self._rows(int(number), replica), [number],
                                           (tf.int64, tf.uint32))
            return tf.data.Dataset.from_tensor_slices((tf.ensure_shape(ids, [None, plan.per_replica_batch_size]),
                                                       tf.ensure_shape(seeds, [None, plan.per_replica_batch_size])))

        blocks = -(-(plan.total_steps - self._first_step) // self._steps)
        return tf.data.Dataset.range(blocks).flat_map(slices)

    def _rows(self, number, replica):
        return order.rows_of(self._block(number), self._plan.replicas, replica)

    def _block(self, number):
        """(ids, seeds), each [steps, batch_size]. Replicas are at about the same step, so two blocks are kept."""
        with self._lock:
            if number not in self._kept:
                begin = self._first_step + number * self._steps
                end = min(begin + self._steps, self._plan.total_steps)
                self._kept = {other: block for other, block in self._kept.items() if other == number - 1}
                self._kept[number] = order.global_batches(self._stream, self._plan.batch_size, begin, end)
            return self._kept[number]


def _lie_on_device(split, wanted, runtime):
    """Whether a split's images are to lie on the devices."""
    if wanted == "device" and split.bytes is None:
        raise UsageError("--input=device needs images that lie in memory; those of this --dataset are in files",
                         "leave --input out")
    # Only XLA gathers uint8 on a GPU: TensorFlow's own kernel would copy all images to the host in every step.
    most = runtime.kind.resident_bytes if runtime.xla else 0
    return wanted == "device" or (wanted == "auto" and (split.bytes or math.inf) <= most)


def _threads(split, runtime):
    """How many threads each of this process's pipelines gets."""
    # Gathering from memory is cheap: more threads would only take cores from the training step.
    return max(1, cpu.cores() // len(runtime.devices)) if split.decodes else 1


def iterate(data, threads, device, kind):
    """Opens a pipeline whose elements wait where a replica needs them.

    Args:
        data: A `tf.data.Dataset` of NamedTuples.
        threads: How many threads it gets.
        device: Name of the replica's device.
        kind: Its `DeviceKind`.

    Returns:
        An iterator over such NamedTuples, also inside a `tf.function`.
    """
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.autotune.enabled = False
    data = data.with_options(options)
    return _OnDevice(data, device) if kind.prefetches else iter(data.prefetch(_PREFETCH))


class _OnDevice:
    """An iterator that ends in `prefetch_to_device`, which takes no None in an element: they are put back here.

    Args:
        data: A `tf.data.Dataset` of NamedTuples whose fields are tensors or None.
        device: Name of a device.
    """

    def __init__(self, data, device):
        self._kind = type(data.element_spec)
        self._names = [name for name, spec in data.element_spec._asdict().items() if isinstance(spec, tf.TensorSpec)]
        tensors = data.map(lambda fields: tuple(getattr(fields, name) for name in self._names))
        self._tensors = iter(tensors.apply(tf.data.experimental.prefetch_to_device(device, _PREFETCH)))

    def __iter__(self):
        return self

    def __next__(self):
        given = dict(zip(self._names, next(self._tensors), strict=True))
        return self._kind(**{name: given.get(name) for name in self._kind._fields})
