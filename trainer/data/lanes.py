"""The order of examples that lie together in files: lanes, each read nearly from its beginning to its end.

A split's examples, numbered as they lie, are cut into lanes. Every global batch takes the same number of rows from
each lane, lane after lane, so a replica, and the worker that it is on, needs whole lanes and opens only their files;
and as the number of lanes doesn't depend on that of replicas, neither does the order.

    epoch e of a lane:   its examples → chunks of 16 neighbours, in an order of their own
                         → windows of 256, in an order of their own

All orders follow from (seed, epoch), so any position of the stream can be found without reading what is before it. An
epoch is N positions of the stream. If N isn't a multiple of the batch, lanes get a row more or less from one epoch to
the next, and their borders move by so much: every example still comes once an epoch.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from trainer.data.order import augmentation_seeds, hash_examples

CHUNK, WINDOW = 16, 256


def lanes_of(wanted: int, batch_size: int) -> int:
    """How many lanes a global batch can take equal parts of: the most up to `wanted` that divide both."""
    return math.gcd(wanted, batch_size)


class Lanes:
    """The `order.ExampleOrder` of examples that lie together in files.

    Args:
        seed: The run's seed.
        examples: Size of the split.
        batch_size: Rows of the global batch; a multiple of `lanes`.
        lanes: Number of lanes.
    """

    def __init__(self, seed: int, examples: int, batch_size: int, lanes: int) -> None:
        self._seed, self._examples, self._batch_size, self._lanes = seed, examples, batch_size, lanes
        self._rows, self.seeds_of = batch_size // lanes, augmentation_seeds
        self._walk = functools.lru_cache(maxsize=2 * lanes)(self._walk_of)
        self._ranges = functools.lru_cache(maxsize=4)(self._ranges_of)

    def stream(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """A stretch of the stream, as `order.ExampleOrder.stream` describes it."""
        positions = np.arange(first, last)
        epochs, lanes = positions // self._examples, positions % self._batch_size // self._rows
        ids = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            begins, _ = self._ranges(int(epoch))
            before = self._taken(int(epoch) * self._examples)
            for lane in np.unique(lanes[epochs == epoch]):
                in_lane = (epochs == epoch) & (lanes == lane)
                # The index of each position among those of the lane, counted as `_taken` does.
                batches, rows = np.divmod(positions[in_lane], self._batch_size)
                counts = batches * self._rows + rows % self._rows
                ids[in_lane] = begins[lane] + self._walk(int(epoch), int(lane))[counts - before[lane]]
        return ids, self.seeds_of(self._seed, epochs, ids)

    def _taken(self, position: int) -> np.ndarray:
        """How many of the positions before `position` each lane has: int64 [lanes]."""
        whole, rest = divmod(position, self._batch_size)
        return whole * self._rows + np.clip(rest - np.arange(self._lanes) * self._rows, 0, self._rows)

    def _ranges_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(first example, number of examples) of each lane in an epoch: int64 [lanes] each."""
        sizes = self._taken((epoch + 1) * self._examples) - self._taken(epoch * self._examples)
        return np.cumsum(sizes) - sizes, sizes

    def _walk_of(self, epoch: int, lane: int) -> np.ndarray:
        """The order of a lane's examples in an epoch: int64 [size], counted from the lane's first example."""
        begins, sizes = self._ranges(epoch)
        begin, size = int(begins[lane]), int(sizes[lane])
        chunk_hashes = hash_examples(self._seed + 2**32, epoch, begin + np.arange(0, size, CHUNK))
        chunks = np.argsort(chunk_hashes, kind="stable")
        walk = (chunks[:, None] * CHUNK + np.arange(CHUNK)).ravel()
        walk = walk[walk < size]
        order = np.lexsort((hash_examples(self._seed, epoch, begin + walk), np.arange(size) // WINDOW))
        return walk[order]
