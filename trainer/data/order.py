"""Which examples a step uses: a pure function of (seed, epoch, step). No TensorFlow, no state.

Each example gets a 64-bit hash of (seed, epoch, id) by splitmix64's finalizer (Steele, Lea & Flood 2014, "Fast
splittable pseudorandom number generators"), and an epoch's order is the ids sorted by their hashes. Unlike
`numpy.random.Generator`, whose streams may change with NumPy's version, this order is the same on every machine, now
and later: a run can be resumed anywhere.
"""

from __future__ import annotations

import functools
from typing import Protocol

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class ExampleOrder(Protocol):
    """The endless stream of a split's examples, in the order in which training sees them."""

    def stream(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """A stretch of the stream.

        Args:
            first, last: Positions in the stream, `last` exclusive.

        Returns:
            (ids int64 [last - first], seeds uint32 [last - first]): the example at each position, and the number that
            its augmentation in this epoch follows from.
        """
        ...


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer on uint64 arrays: every bit of the input changes half of the output's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash_examples(seed: int, epochs: np.ndarray | int, ids: np.ndarray | int) -> np.ndarray:
    """The hashes of examples in epochs.

    Args:
        seed: The run's seed, from 0 to 2**31 - 1.
        epochs: Whole numbers, an array or an int.
        ids: Example ids, an array of the same shape or an int.

    Returns:
        uint64 of the broadcast shape.
    """
    with np.errstate(over="ignore"):  # unsigned arithmetic modulo 2**64 is what is meant
        key = _mix((np.asarray(seed, np.uint64) + np.uint64(1)) * _GOLDEN)
        key = _mix(key + (np.asarray(epochs, np.uint64) + np.uint64(1)) * _GOLDEN)
        return _mix(key + (np.asarray(ids, np.uint64) + np.uint64(1)) * _GOLDEN)


def augmentation_seeds(seed: int, epochs: np.ndarray | int, ids: np.ndarray | int) -> np.ndarray:
    """The seeds of the augmentation of examples in epochs: uint32, arguments as in `hash_examples`."""
    # Another seed than the order's, so that position and augmentation have nothing to do with each other.
    return (hash_examples(seed + 2**31, epochs, ids) >> np.uint64(32)).astype(np.uint32)


class Shuffle:
    """The `ExampleOrder` of images in memory: epoch 0 in its order, epoch 1 in its own, …

    Args:
        seed: The run's seed.
        examples: Size of the split.
    """

    def __init__(self, seed: int, examples: int) -> None:
        self._seed, self._examples = seed, examples

    def stream(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """A stretch of the stream, as `ExampleOrder.stream` describes it."""
        size = self._examples
        parts = [permutation(self._seed, int(epoch), size)[max(first - epoch * size, 0):last - epoch * size]
                 for epoch in range(first // size, -(-last // size))]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return ids, augmentation_seeds(self._seed, np.arange(first, last) // size, ids)


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
    """The order of an epoch: int64 [examples], each id once. Shared and read-only."""
    order = np.argsort(hash_examples(seed, epoch, np.arange(examples)), kind="stable")
    order.setflags(write=False)
    return order


def batches(order: ExampleOrder, batch_size: int, replicas: int, replica: int, first_step: int,
            last_step: int) -> tuple[np.ndarray, np.ndarray]:
    """A replica's rows of the global batches of some steps.

    A replica takes consecutive rows of the global batch, so the batches are the same on any number of replicas.

    Args:
        order: The order of the split's examples.
        batch_size: Rows of the global batch.
        replicas: Number of replicas that share the global batch.
        replica: The replica's id, from 0.
        first_step, last_step: Steps, `last_step` exclusive.

    Returns:
        (ids, seeds) as `ExampleOrder.stream`, each [last_step - first_step, batch_size // replicas].
    """
    return rows_of(global_batches(order, batch_size, first_step, last_step), replicas, replica)


def global_batches(order: ExampleOrder, batch_size: int, first_step: int,
                   last_step: int) -> tuple[np.ndarray, np.ndarray]:
    """The global batches of some steps; arguments as in `batches`.

    Returns:
        (ids, seeds) as `ExampleOrder.stream`, each [last_step - first_step, batch_size].
    """
    ids, seeds = order.stream(first_step * batch_size, last_step * batch_size)
    return ids.reshape(-1, batch_size), seeds.reshape(-1, batch_size)


def rows_of(pair: tuple[np.ndarray, np.ndarray], replicas: int, replica: int) -> tuple[np.ndarray, np.ndarray]:
    """A replica's rows of (ids, seeds), each [steps, batch_size]: consecutive ones, [steps, batch_size // replicas]."""
    ids, seeds = (part.reshape(len(part), replicas, -1)[:, replica] for part in pair)
    return ids, seeds
