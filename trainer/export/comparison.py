"""Exports compared with their model on drawn images, where the data that would measure them is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.dataset import Dataset, in_memory
from trainer.export.measure import ANSWERED, Measurement, exact_products
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras

    from trainer.plan import Job

_IMAGES = 64
_COARSEST, _FINEST = 1, 16  # fields a side of a drawn image


class Comparison(Measurement):
    """Compares exports with the model's own probabilities; measures no accuracy.

    Args:
        job: What the run trained, with the data set that `drawn` makes.
        model: The model, in float32.
    """

    def __init__(self, job: Job, model: keras.Model) -> None:
        super().__init__(job)
        (images, _), = self.split.chunks(self.split.size)
        with exact_products(), tf.device(self._device):
            logits = model(tf.constant(images, tf.float32), training=False)
            self._probabilities: np.ndarray = tf.nn.softmax(logits).numpy()

    def _targets(self, ids: np.ndarray, labels: np.ndarray) -> tuple[int, list[np.ndarray]]:
        """The model's probabilities in place of labels, as `Measurement._targets` describes it."""
        return ANSWERED, [np.array([self._probabilities.shape[1]], np.int64), self._probabilities[ids]]


def drawn(classes: Sequence[str], model: keras.Model) -> Dataset:
    """A data set of random images, coarse and fine ones of all contrasts; their labels mean nothing.

    Args:
        classes: Names of the classes.
        model: The model that sees them.
    """
    height, width, channels = model.input_shape[1:]
    rng = np.random.default_rng(0)
    images = np.empty((_IMAGES, height, width, channels), np.uint8)
    for image in images:
        fields = rng.integers(_COARSEST, _FINEST, endpoint=True)
        rows, columns = np.arange(height) * fields // height, np.arange(width) * fields // width
        values = rng.uniform(0, 255) + rng.uniform(0, 128) * rng.normal(size=(fields, fields, channels))
        image[:] = values[rows][:, columns].clip(0, 255)
    labels = np.arange(_IMAGES, dtype=np.int32) % len(classes)
    return in_memory("drawn", classes, (images, labels), (images, labels))
