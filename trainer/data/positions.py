"""A run's order of examples, worked out ahead: for pipelines, and for devices on which all images lie."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from trainer.data import order
from trainer.data.split import Batch
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.data.order import ExampleOrder
    from trainer.plan import Plan

_BLOCK = 2**16  # examples whose order is worked out at once, of a pipeline


class Blocks:
    """The order of a run's examples, worked out a block of steps at a time, once for all replicas of this process.

    Args:
        order: The order of the split's examples.
        plan: The steps of the run.
        first_step: The step at which the run goes on.
    """

    def __init__(self, order: ExampleOrder, plan: Plan, first_step: int) -> None:
        self._order, self._plan, self._first_step = order, plan, first_step
        self._steps = max(1, _BLOCK // plan.batch_size)
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def rows_of(self, replica: int) -> tf.data.Dataset:
        """A data set of a replica's (ids int64 [n], seeds uint32 [n]), an element a step."""
        plan = self._plan

        @tf.autograph.experimental.do_not_convert
        def slices(block_index: tf.Tensor) -> tf.data.Dataset:
            ids, seeds = tf.numpy_function(functools.partial(self._rows, replica), [block_index],
                                           (tf.int64, tf.uint32))
            return tf.data.Dataset.from_tensor_slices((tf.ensure_shape(ids, [None, plan.per_replica_batch_size]),
                                                       tf.ensure_shape(seeds, [None, plan.per_replica_batch_size])))

        blocks = -(-(plan.total_steps - self._first_step) // self._steps)
        return tf.data.Dataset.range(blocks).flat_map(slices)

    def _rows(self, replica: int, block_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A replica's rows of (ids, seeds) of a block, each [steps, rows of the replica]."""
        return order.rows_of(self._block(int(block_index)), self._plan.replicas, replica, self._plan.passes)

    def _block(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids, seeds), each [steps, batch_size]. Replicas are at about the same step, so two blocks are kept."""
        with self._lock:
            if index not in self._kept:
                begin = self._first_step + index * self._steps
                end = min(begin + self._steps, self._plan.total_steps)
                self._kept = {other: block for other, block in self._kept.items() if other == index - 1}
                self._kept[index] = order.global_batches(self._order, self._plan.batch_size, begin, end)
            return self._kept[index]


class DevicePositions:
    """The ids and seeds of the steps of a call, on the devices that hold all images: no pipeline, no iterator.

    While a call computes, a thread works out the positions of the next.

    Args:
        order: The order of the split's examples.
        plan: The steps of the run.
        first_step: The step at which the run goes on.
        replicas: The ids of this process's replicas.
        devices: The names of their devices.
    """

    def __init__(self, order: ExampleOrder, plan: Plan, first_step: int, replicas: Sequence[int],
                 devices: Sequence[str]) -> None:
        self._order, self._plan, self._step = order, plan, first_step
        self._replicas, self._devices = replicas, devices
        self._thread = ThreadPoolExecutor(1, "positions")
        self._ahead: Future[np.ndarray] | None = None

    @property
    def spec(self) -> list[tf.TensorSpec]:
        """What `take` returns, for any number of steps."""
        return [tf.TensorSpec([None, 2, self._plan.per_replica_batch_size], tf.int64) for _ in self._devices]

    def take(self, steps: int) -> list[tf.Tensor]:
        """The positions of the next steps.

        Args:
            steps: How many; the run has as many left.

        Returns:
            For each replica of this process int64 [steps, 2, rows], on its device: each step's ids and seeds.
        """
        worked_out = self._ahead.result()[:steps] if self._ahead else np.empty([0, 2, self._plan.batch_size], np.int64)
        begin, self._step = self._step, self._step + steps
        parts = [worked_out, self._work_out(begin + len(worked_out), self._step)]
        self._ahead = self._thread.submit(self._work_out, self._step, min(self._step + steps, self._plan.total_steps))
        positions = np.concatenate(parts).reshape(steps, 2, self._plan.passes, self._plan.replicas, -1)
        tensors = []
        for replica, device in zip(self._replicas, self._devices, strict=True):
            with tf.device(device):
                tensors.append(tf.constant(positions[:, :, :, replica].reshape(steps, 2, -1)))
        return tensors

    def _work_out(self, begin: int, end: int) -> np.ndarray:
        """int64 [end - begin, 2, batch_size]."""
        return np.stack(order.global_batches(self._order, self._plan.batch_size, begin, end), 1, dtype=np.int64)


def batch_at(position: tf.Tensor) -> Batch:
    """The `Batch`, without images and labels, of int64 [2, rows], a step of what `DevicePositions` gives."""
    return Batch(position[0], tf.cast(position[1], tf.uint32), None, None)
