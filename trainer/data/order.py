"""Which examples a step uses: a pure function of (seed, epoch, step). No TensorFlow, no state.

Each example gets a 64-bit hash of (seed, epoch, id) by splitmix64's finalizer (Steele, Lea & Flood 2014, "Fast
splittable pseudorandom number generators"), and an epoch's order is the ids sorted by their hashes. Unlike
`numpy.random.Generator`, whose streams may change with NumPy's version, this order is the same on every machine, now
and later: a run can be resumed anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from trainer.plan import Job

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 256  # least positions in which all classes come equally often, of `Balanced`


class ExampleOrder(Protocol):
    """The endless stream of a split's examples, in the order in which training sees them.

    Attributes:
        seeds_of: Makes seeds of (the run's seed, epochs, ids): `augmentation_seeds`, or `alternating_seeds`.
    """

    seeds_of: Callable[[int, np.ndarray | int, np.ndarray | int], np.ndarray]

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


def alternating_seeds(seed: int, epochs: np.ndarray | int, ids: np.ndarray | int) -> np.ndarray:
    """The seeds of augmentation whose lowest bits are drawn for the first epoch, and alternate from each to the next.

    Args:
        seed, epochs, ids: As in `hash_examples`.

    Returns:
        uint32 of the broadcast shape.
    """
    first = hash_examples(seed + 2**34, 0, ids) >> np.uint64(63)
    bits = (first + np.asarray(epochs, np.uint64)) & np.uint64(1)
    return augmentation_seeds(seed, epochs, ids) & np.uint32(2**32 - 2) | bits.astype(np.uint32)


class Shuffle:
    """The `ExampleOrder` of images in memory: epoch 0 in its order, epoch 1 in its own, …

    Args:
        seed: The run's seed.
        examples: Size of the split.
    """

    def __init__(self, seed: int, examples: int) -> None:
        self._seed, self._examples = seed, examples
        self.seeds_of = augmentation_seeds

    def stream(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """A stretch of the stream, as `ExampleOrder.stream` describes it."""
        size = self._examples
        parts = [permutation(self._seed, int(epoch), size)[max(first - epoch * size, 0):last - epoch * size]
                 for epoch in range(first // size, -(-last // size))]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return ids, self.seeds_of(self._seed, np.arange(first, last) // size, ids)


def order_of(job: Job) -> ExampleOrder:
    """The order in which a run sees its examples: a step of several `--batch_size`s takes them one after the other."""
    split = job.data.train
    order = (Balanced(job.config.seed, split.labels) if job.config.sampling == "balanced" else
             split.order(job.config.seed, job.config.known_batch_size))
    if "alternating_flip" in job.config.augment:
        order.seeds_of = alternating_seeds
    return order


class Balanced:
    """The `ExampleOrder` in which every class comes equally often, however many examples it has.

    The stream is made of blocks that hold each class the same number of times, in an order of their own. Each class
    goes through its examples in one order after another: none comes again before all of its class have come. So the
    example at a position follows from (seed, position) and the labels: nothing is counted. The seed of an augmentation
    follows from how often the example came before, for a rare class's come several times an epoch.

    Args:
        seed: The run's seed.
        labels: int [n], of the split's examples. A class without examples doesn't come.
    """

    def __init__(self, seed: int, labels: np.ndarray) -> None:
        self._seed = seed
        # Four bytes an example, and as many again for the orders that are kept.
        small = labels.astype(np.min_scalar_type(int(labels.max())))  # which NumPy sorts faster
        self._by_class = np.argsort(small, kind="stable").astype(np.min_scalar_type(len(labels)))
        counts = np.bincount(labels)
        self._sizes = counts[counts > 0]
        self._begins = np.cumsum(self._sizes) - self._sizes
        self._rounds = -(-_BLOCK // len(self._sizes))  # of few classes, neighbours must be of the same one at times
        self.seeds_of = augmentation_seeds
        self._walk = functools.lru_cache(maxsize=2 * len(self._sizes))(self._walk_of)

    def stream(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """A stretch of the stream, as `ExampleOrder.stream` describes it."""
        classes, turns = self._classes_and_turns(first, last)
        passes, places = np.divmod(turns, self._sizes[classes])
        ids = np.empty(len(classes), np.int64)
        # One group after another of the positions of the same pass of the same class.
        by_pass = np.lexsort((passes, classes))
        ends = np.flatnonzero(np.diff(classes[by_pass]) | np.diff(passes[by_pass])) + 1
        for group in np.split(by_pass, ends) if len(by_pass) else ():
            ids[group] = self._walk(int(classes[group[0]]), int(passes[group[0]]))[places[group]]
        return ids, self.seeds_of(self._seed, passes, ids)

    def _classes_and_turns(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """(the class at each position, how often it came before): int64 [last - first] each."""
        classes, size = len(self._sizes), len(self._sizes) * self._rounds
        blocks = np.arange(first // size, -(-last // size))
        hashes = hash_examples(self._seed + 2**33, blocks[:, None], np.arange(size))
        drawn = np.argsort(hashes, axis=1, kind="stable") % classes
        turns = np.empty_like(drawn)
        in_order = np.argsort(drawn, axis=1, kind="stable")  # `rounds` positions of the first class, of the second, …
        np.put_along_axis(turns, in_order, np.tile(np.arange(self._rounds), classes)[None], 1)
        turns += blocks[:, None] * self._rounds
        begin = first - first // size * size
        return drawn.ravel()[begin:begin + last - first], turns.ravel()[begin:begin + last - first]

    def _walk_of(self, label: int, number: int) -> np.ndarray:
        """The examples of a class in the order of a pass: unsigned [size]."""
        ids = self._by_class[self._begins[label]:self._begins[label] + self._sizes[label]]
        return ids[np.argsort(hash_examples(self._seed, number, ids), kind="stable")]


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


def rows_of(pair: tuple[np.ndarray, np.ndarray], replicas: int, replica: int,
            passes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A replica's rows of (ids, seeds), each [steps, batch_size]: consecutive ones of each pass of a step.

    Args:
        pair: (ids, seeds).
        replicas: Number of replicas that share each pass.
        replica: The replica's id, from 0.
        passes: Number of passes in which a step goes, each over consecutive rows of the batch.

    Returns:
        (ids, seeds), each [steps, batch_size // replicas], pass after pass.
    """
    ids, seeds = (part.reshape(len(part), passes, replicas, -1)[:, :, replica].reshape(len(part), -1) for part in pair)
    return ids, seeds
