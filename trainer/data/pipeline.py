"""Order → read → batch → prefetch: one plain tf.data pipeline and iterator for each replica.

Not a distributed iterator: that one halves training speed on CPUs, even if the batch goes unused. Each
replica reads its own rows of every global batch, so nothing needs to be split or sharded afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.data.augment.apply import left_for_device
from trainer.data.order import order_of
from trainer.data.positions import Blocks, DevicePositions
from trainer.data.split import Batch, EvalBatch
from trainer.errors import UsageError
from trainer.process import host
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.data.split import Split
    from trainer.device_kind import DeviceKind
    from trainer.distributed.runtime import Runtime
    from trainer.plan import Job

_PREFETCH = 4


class Feed(NamedTuple):
    """What training reads.

    Args:
        iterators: An iterator over `Batch` for each local replica; none where images are resident.
        resident: The split's (images, labels) on the device of each local replica, or None where batches bring them.
        positions: Where images are resident, what each call of the device loop takes its steps from; else None.
        augment: Those of `--augment` that are left to be done on the device.
        class_weights: float32 [classes], by which losses are multiplied, or None.
    """

    iterators: list[Iterator[Batch]]
    resident: list[tuple[tf.Tensor, tf.Tensor] | None]
    positions: DevicePositions | None
    augment: tuple[str, ...]
    class_weights: np.ndarray | None


def open_feed(job: Job, *, first_step: int) -> Feed:
    """Opens the pipelines of this process's replicas.

    Args:
        job: The job whose batches are read.
        first_step: The step at which the run goes on: a seek, nothing is replayed.

    Returns:
        The `Feed`, whose iterators go from `first_step` to the end of the run.

    Raises:
        UsageError: if `--input=device` is set, and the images don't lie in memory.
    """
    config, plan, runtime, split = job.config, job.plan, job.runtime, job.data.train
    stream, threads = order_of(job), _threads(split, runtime)
    augment = left_for_device(config.augment, split)
    weights = job.data.balanced_weights() if config.class_weights == "balanced" else None
    if _lie_on_device(split, config.input, runtime):
        positions = DevicePositions(stream, plan, first_step, runtime.replica_ids, runtime.devices)
        return Feed([], [split.resident(device) for device in runtime.devices], positions, augment, weights)
    blocks = Blocks(stream, plan, first_step)
    iterators = [iterate(split.read(blocks.rows_of(replica), threads), threads, device, runtime.kind)
                 for replica, device in zip(runtime.replica_ids, runtime.devices, strict=True)]
    return Feed(iterators, [None] * len(iterators), None, augment, weights)


def evaluation_iterators(split: Split, runtime: Runtime, *,
                         per_replica_batch_size: int) -> tuple[list[Iterator[EvalBatch]], int]:
    """Opens pipelines that go over a split again and again, padded so that every batch is full.

    Args:
        split: The examples to evaluate on.
        runtime: The devices.
        per_replica_batch_size: Rows of a replica's batch.

    Returns:
        (one iterator over `EvalBatch` for each local replica, steps in one pass over the split).
    """
    steps = -(-split.size // (per_replica_batch_size * runtime.replicas))
    positions = np.arange(steps * per_replica_batch_size * runtime.replicas)
    positions = positions.reshape(steps, runtime.replicas, per_replica_batch_size)
    threads = _threads(split, runtime)

    @tf.autograph.experimental.do_not_convert
    def weigh(batch: Batch, weights: tf.Tensor) -> EvalBatch:
        readable = weights if batch.mask is None else weights * batch.mask
        unreadable = weights - readable
        return EvalBatch(batch.images, batch.labels, readable, unreadable)  # pyright: ignore[reportArgumentType]

    def data_of(replica: int) -> tf.data.Dataset:
        local = positions[:, replica]
        ids, weights = np.minimum(local, split.size - 1), (local < split.size).astype(np.float32)
        data = split.read(tf.data.Dataset.from_tensor_slices((ids, np.zeros(ids.shape, np.uint32))).repeat(), threads,
                          training=False)
        return tf.data.Dataset.zip(data, tf.data.Dataset.from_tensor_slices(weights).repeat()).map(weigh)

    iterators = [iterate(data_of(replica), threads, device, runtime.kind)
                 for replica, device in zip(runtime.replica_ids, runtime.devices, strict=True)]
    return iterators, steps


def _lie_on_device(split: Split, wanted: str, runtime: Runtime) -> bool:
    """Whether a split's images are to lie on the devices; `wanted` is the value of `--input`."""
    if wanted == "device" and split.bytes is None:
        raise UsageError("--input=device needs images that lie in memory; those of this --dataset are in files",
                         "leave --input out")
    # Only XLA gathers uint8 on a GPU: TensorFlow's own kernel would copy all images to the host in every step.
    most = runtime.kind.resident_bytes if runtime.xla else 0
    return wanted == "device" or (wanted == "auto" and (split.bytes or math.inf) <= most)


def _threads(split: Split, runtime: Runtime) -> int:
    """The number of threads of each of this process's pipelines."""
    # Gathering from memory is cheap: more threads would only take cores from the training step.
    return max(1, host.cores() // len(runtime.devices)) if split.decodes else 1


def with_threads(data: tf.data.Dataset, threads: int) -> tf.data.Dataset:
    """A data set with a thread pool of its own, which TensorFlow doesn't tune.

    The thread that tunes logs a warning where an iterator is dropped while it works, and all sizes are chosen here.
    """
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.autotune.enabled = False
    return data.with_options(options)


def iterate(data: tf.data.Dataset, threads: int, device: str, kind: DeviceKind) -> Iterator[Any]:
    """Opens a pipeline whose elements wait where a replica needs them.

    Args:
        data: A data set of NamedTuples.
        threads: The number of threads of the pipeline.
        device: Name of the replica's device.
        kind: What the kind of the device implies.

    Returns:
        An iterator over such NamedTuples, also inside a `tf.function`.
    """
    data = with_threads(data, threads)
    return _OnDevice(data, device) if kind.prefetches else iter(data.prefetch(_PREFETCH))


class _OnDevice:
    """An iterator that ends in `prefetch_to_device`, which takes no None in an element: they are put back here.

    Args:
        data: A data set of NamedTuples whose fields are tensors or None.
        device: Name of a device.
    """

    def __init__(self, data: tf.data.Dataset, device: str) -> None:
        specs: Any = data.element_spec
        self._kind = type(specs)
        self._names = [name for name, spec in specs._asdict().items() if isinstance(spec, tf.TensorSpec)]
        tensors = data.map(self._tensors_of)
        self._tensors = iter(tensors.apply(tf.data.experimental.prefetch_to_device(device, _PREFETCH)))

    @tf.autograph.experimental.do_not_convert
    def _tensors_of(self, element: Any) -> tuple[tf.Tensor, ...]:
        """The fields of an element that are not None."""
        return tuple(getattr(element, name) for name in self._names)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        tensors = dict(zip(self._names, next(self._tensors), strict=True))
        return self._kind(**{name: tensors.get(name) for name in self._kind._fields})
