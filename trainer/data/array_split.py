"""Images that fit into memory: gathered from there, in the order that training asks for."""

import functools

import numpy as np

from trainer.data.split import Batch, Split
from trainer.process.tf_import import tf


class ArraySplit(Split):
    """See the module.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].

    Attributes:
        images: As above.
        bytes: Theirs.
    """

    def __init__(self, images, labels):
        super().__init__(labels)
        self.images = np.ascontiguousarray(images)
        self.bytes = self.images.nbytes

    @functools.cached_property
    def _on_host(self):
        """Tensors that pipelines can capture without a copy in their graphs."""
        with tf.device("CPU:0"):
            return tf.constant(self.images), tf.constant(self.labels)

    def read(self, positions, threads, training=True):
        """See `Split.read`."""
        images, labels = self._on_host

        def gather(ids, seeds):
            return Batch(ids, seeds, tf.gather(images, ids), tf.gather(labels, ids))

        return positions.map(gather)

    def resident(self, device):
        """See `Split.resident`."""
        images, labels = self._on_host
        with tf.device(device):
            # int64: a GPU's int32 tensors lie on the host, and all of them would travel in every step.
            return tf.identity(images), tf.identity(tf.cast(labels, tf.int64))

    def chunks(self, rows):
        """See `Split.chunks`."""
        for begin in range(0, self.size, rows):
            yield self.images[begin:begin + rows], self.labels[begin:begin + rows]

    def name_of(self, example):
        """See `Split.name_of`."""
        return f"example {example:,}"
