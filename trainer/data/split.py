"""What every split of a data set can do, wherever its images lie, and the batches that it gives."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainer.data.order import Shuffle
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.data.order import ExampleOrder


class Batch(NamedTuple):
    """A replica's rows of a training step.

    Args:
        ids: int64 [n].
        seeds: uint32 [n].
        images: uint8 [n, height, width, channels]; None where the images are on the device already.
        labels: int32 [n]; None where the labels are on the device already.
        mask: float32 [n], 0 for images that can't be read; None where all can.
    """

    ids: tf.Tensor
    seeds: tf.Tensor
    images: tf.Tensor | None
    labels: tf.Tensor | None
    mask: tf.Tensor | None = None


class EvalBatch(NamedTuple):
    """A replica's rows of an evaluation step.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].
        weights: float32 [n], 0 for padding and for images that can't be read, 1 for all others.
        unreadable: float32 [n], 1 for images that can't be read, 0 for all others.
    """

    images: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    unreadable: tf.Tensor


class Split(abc.ABC):
    """Labelled images with ids from 0 to size - 1.

    Args:
        labels: int32 [n], indices into the data set's classes.

    Attributes:
        labels: int32 [n], indices into the data set's classes.
        bytes: Size of the decoded images; None where they aren't in memory.
        decodes: Whether reading takes much computing.
        done: Those of `--augment` that reading does already.
    """

    decodes: bool = False
    done: tuple[str, ...] = ()
    bytes: int | None = None

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = np.ascontiguousarray(labels, np.int32)

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @property
    def usable(self) -> np.ndarray:
        """Which examples are not known to be unusable: bool [n]."""
        return np.ones(self.size, bool)

    def order(self, seed: int, batch_size: int) -> ExampleOrder:
        """The order in which training sees the examples.

        Args:
            seed: The run's seed.
            batch_size: Rows of the global batch.
        """
        del batch_size  # matters only where examples lie together in files
        return Shuffle(seed, self.size)

    @abc.abstractmethod
    def read(self, positions: tf.data.Dataset, threads: int, training: bool = True) -> tf.data.Dataset:
        """Puts a pipeline's images beside its ids.

        Args:
            positions: A data set of (ids int64 [n], seeds uint32 [n]).
            threads: How many may read and decode at once.
            training: Whether images are seen as training or as evaluation sees them.

        Returns:
            A data set of `Batch`.
        """

    def resident(self, device: str) -> tuple[tf.Tensor, tf.Tensor] | None:
        """Puts all images and labels on a device, so that only ids need to travel.

        Args:
            device: The device's name.

        Returns:
            (images uint8 [size, height, width, channels], labels int64 [size]), or None if they aren't in memory.
        """
        return None

    @abc.abstractmethod
    def chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Goes over the images once, in the order of their ids, as evaluation sees them.

        Args:
            chunk_size: Images of a chunk, at most.

        Yields:
            (images uint8 [n, height, width, channels], labels int32 [n]) on the host.
        """

    def identified_chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Goes over the images once, as `chunks` does, with their ids.

        Args:
            chunk_size: Images of a chunk, at most.

        Yields:
            (ids int64 [n], images, labels).
        """
        done = 0
        for images, labels in self.chunks(chunk_size):
            yield np.arange(done, done + len(labels)), images, labels
            done += len(labels)

    def served_file(self, example: int) -> bytes | None:
        """A file that shows an example and that a served model reads; None if there is none.

        Raises:
            OSError: if it can't be read.
            ValueError: if what was read isn't what was written.
        """
        return None

    @abc.abstractmethod
    def inspect(self, example: int) -> tuple[str | None, np.ndarray | None]:
        """Reads and decodes all of an example.

        Returns:
            (what is wrong with it, in a few words, or None; all of its pixels, uint8 [height, width, channels], upright
            and of its own size, or None).
        """

    @abc.abstractmethod
    def name_of(self, example: int) -> str:
        """The path of an example, as a user reads it: of a file, or of a shard with the record's number."""
