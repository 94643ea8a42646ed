"""Images that fit into memory: gathered from there, in the order that training asks for."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from trainer.data.split import Batch, Split
from trainer.process.tf_import import tf


class ArraySplit(Split):
    """A split whose images are an array in memory.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].

    Attributes:
        images: uint8 [n, height, width, channels].
        bytes: Size of the images.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__(labels)
        self.images = np.ascontiguousarray(images)
        self.bytes = self.images.nbytes

    def take(self, examples: np.ndarray) -> ArraySplit:
        """The split of some of the examples, as a mask or as ids, in the order of their ids."""
        return ArraySplit(self.images[examples], self.labels[examples])

    @functools.cached_property
    def _on_host(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(images, labels) as tensors that pipelines can capture without a copy in their graphs."""
        with tf.device("CPU:0"):
            return tf.constant(self.images), tf.constant(self.labels)

    def read(self, positions: tf.data.Dataset, threads: int, training: bool = True) -> tf.data.Dataset:
        """Puts a pipeline's images beside its ids, as `Split.read` describes it."""
        images, labels = self._on_host

        @tf.autograph.experimental.do_not_convert
        def gather(ids: tf.Tensor, seeds: tf.Tensor) -> Batch:
            return Batch(ids, seeds, tf.gather(images, ids), tf.gather(labels, ids))

        return positions.map(gather)

    def resident(self, device: str) -> tuple[tf.Tensor, tf.Tensor]:
        """Puts all images and labels on a device, as `Split.resident` describes it."""
        images, labels = self._on_host
        with tf.device(device):
            # int64: a GPU's int32 tensors lie on the host, and all of them would travel in every step.
            return tf.identity(images), tf.identity(tf.cast(labels, tf.int64))

    def chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Goes over the images once, as `Split.chunks` describes it."""
        for begin in range(0, self.size, chunk_size):
            yield self.images[begin:begin + chunk_size], self.labels[begin:begin + chunk_size]

    def served_file(self, example: int) -> bytes | None:
        """A PNG of an example, as `Split.served_file` describes it."""
        image, channels = self.images[example], self.images.shape[-1]
        if channels not in (1, 3):
            return None
        written = io.BytesIO()
        Image.fromarray(image if channels == 3 else image[..., 0]).save(written, "PNG")
        return written.getvalue()

    def inspect(self, example: int) -> tuple[None, np.ndarray]:
        """An example, as `Split.inspect` describes it: nothing can be wrong with it."""
        return None, self.images[example]

    def name_of(self, example: int) -> str:
        """The name of an example, as `Split.name_of` describes it."""
        return f"example {example:,}"
