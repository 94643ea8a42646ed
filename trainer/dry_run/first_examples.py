"""The beginning of a split, where a short evaluation is enough."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer.data.split import Split
from trainer.process.tf_import import tf


class FirstExamples(Split):
    """The first examples of a split.

    Args:
        split: The split.
        count: How many.
    """

    def __init__(self, split: Split, count: int) -> None:
        super().__init__(split.labels[:count])
        self._split = split
        self.decodes, self.done = split.decodes, split.done

    @property
    def usable(self) -> np.ndarray:
        """Which examples are not known to be unusable, as `Split.usable` describes it."""
        return self._split.usable[:self.size]

    def read(self, positions: tf.data.Dataset, threads: int, training: bool = True) -> tf.data.Dataset:
        """Puts a pipeline's images beside its ids, as `Split.read` describes it."""
        return self._split.read(positions, threads, training)

    def chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Goes over the images once, as `Split.chunks` describes it."""
        for _, images, labels in self.identified_chunks(chunk_size):
            yield images, labels

    def identified_chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Goes over the images once with their ids, as `Split.identified_chunks` describes it."""
        for ids, images, labels in self._split.identified_chunks(min(chunk_size, self.size)):
            few = ids < self.size
            if few.any():
                yield ids[few], images[few], labels[few]
            if ids[-1] + 1 >= self.size:
                return

    def served_file(self, example: int) -> bytes | None:
        """A file that shows an example, as `Split.served_file` describes it."""
        return self._split.served_file(example)

    def inspect(self, example: int) -> tuple[str | None, np.ndarray | None]:
        """Reads and decodes all of an example, as `Split.inspect` describes it."""
        return self._split.inspect(example)

    def name_of(self, example: int) -> str:
        """The name of an example, as `Split.name_of` describes it."""
        return self._split.name_of(example)
