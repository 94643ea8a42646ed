"""What every split of a data set can do, wherever its images lie, and the batches that it gives."""

import abc
from typing import NamedTuple

import numpy as np

from trainer.data.order import Shuffle
from trainer.process.tf_import import tf


class Batch(NamedTuple):
    """A replica's rows of a training step.

    ids int64 [n], seeds uint32 [n], images uint8 [n, height, width, channels], labels int32 [n]; sound
    float32 [n], 0 for images that can't be read, or None where all can. Where the images are on the device
    already, images and labels are None.
    """

    ids: tf.Tensor
    seeds: tf.Tensor
    images: tf.Tensor | None
    labels: tf.Tensor | None
    mask: tf.Tensor | None = None


class EvalBatch(NamedTuple):
    """A replica's rows of an evaluation step: as in `Batch`.

    weights float32 [n], 0 for padding and for images that can't be read; unreadable float32 [n], 1 for the latter.
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
        labels: As above.
        bytes: Of the decoded images; None where they aren't in memory.
        decodes: Whether reading takes much computing.
        done: Which of `--augment` reading does already.
    """

    decodes, done = False, ()
    bytes = None

    def __init__(self, labels):
        self.labels = np.ascontiguousarray(labels, np.int32)

    @property
    def size(self):
        """Number of examples."""
        return len(self.labels)

    def order(self, seed, batch_size):
        """The order in which training sees the examples.

        Args:
            seed: The run's seed.
            batch_size: Rows of the global batch.

        Returns:
            An object with a `stream`, as `order.Shuffle`.
        """
        del batch_size  # matters only where examples lie together in files
        return Shuffle(seed, self.size)

    @abc.abstractmethod
    def read(self, positions, threads, training=True):
        """Puts a pipeline's images beside its ids.

        Args:
            positions: A `tf.data.Dataset` of (ids int64 [rows], seeds uint32 [rows]).
            threads: How many may read and decode at once.
            training: Whether images are seen as training or as evaluation sees them.

        Returns:
            A `tf.data.Dataset` of `Batch`.
        """

    def resident(self, device):
        """Puts all of it on a device, so that only ids need to travel.

        Args:
            device: The device's name.

        Returns:
            (images uint8 [size, height, width, channels], labels int64 [size]), or None if it isn't in memory.
        """
        return None

    @abc.abstractmethod
    def chunks(self, rows):
        """Goes over the images once, in the order of their ids, as evaluation sees them.

        Args:
            rows: Images of a chunk, at most.

        Yields:
            (images uint8 [n, height, width, channels], labels int32 [n]) on the host.
        """

    @abc.abstractmethod
    def name_of(self, example):
        """Where an example lies, for people: a file, or a record of one."""
