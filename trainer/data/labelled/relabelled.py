"""A split with the labels of a model that numbers its classes otherwise."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from trainer.data.split import Batch, Split
from trainer.errors import DataError
from trainer.process.tf_import import tf

_LISTED = 12  # classes


class RelabelledSplit(Split):
    """A split whose labels stand for a model's classes.

    Args:
        split: The split.
        labels_of: int32 [classes of the split]: the label that the model has for each; -1 for none, which no image has.
    """

    def __init__(self, split: Split, labels_of: np.ndarray) -> None:
        super().__init__(labels_of[split.labels])
        self._split, self._labels_of, self.decodes = split, labels_of, split.decodes

    def read(self, positions: tf.data.Dataset, threads: int, training: bool = True) -> tf.data.Dataset:
        """Puts a pipeline's images beside its ids, as `Split.read` describes it."""
        with tf.device("CPU:0"):
            labels_of = tf.constant(self._labels_of)

        @tf.autograph.experimental.do_not_convert
        def relabel(batch: Batch) -> Batch:
            return batch._replace(labels=tf.gather(labels_of, batch.labels))

        return self._split.read(positions, threads, training).map(relabel)

    def chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Goes over the images once, as `Split.chunks` describes it."""
        for images, labels in self._split.chunks(chunk_size):
            yield images, self._labels_of[labels]

    def inspect(self, example: int) -> tuple[str | None, np.ndarray | None]:
        """Reads and decodes all of an example, as `Split.inspect` describes it."""
        return self._split.inspect(example)

    def name_of(self, example: int) -> str:
        """The name of an example, as `Split.name_of` describes it."""
        return self._split.name_of(example)


def relabelled(split: Split, classes: Sequence[str], known: Sequence[str]) -> Split:
    """A split with a model's labels; classes are matched by name.

    Args:
        split: The split.
        classes: The names of its classes, in the order of its labels; there may be some without images.
        known: The names of the model's classes, in the order of the model's labels.

    Raises:
        DataError: if there are images of a class that the model doesn't know.
    """
    label_of = {unicodedata.normalize("NFC", name): label for label, name in enumerate(known)}
    labels_of = np.array([label_of.get(unicodedata.normalize("NFC", name), -1) for name in classes], np.int32)
    counts = np.bincount(split.labels, minlength=len(classes))
    missing: list[int] = np.flatnonzero((labels_of < 0) & (counts > 0)).tolist()
    unknown = [f"{classes[label]} ({counts[label]:,} images{_nearest(classes[label], known)})" for label in missing]
    if unknown:
        raise DataError(f"the model doesn't know {_some(unknown)}; its classes are {_some(known)}",
                        "name the classes as the model does, or leave those images out: an accuracy over classes that "
                        "can't be answered would say nothing")
    return RelabelledSplit(split, labels_of)


def _nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the class that may be meant."""
    folded = {other.casefold(): other for other in known}
    matches = difflib.get_close_matches(name.casefold(), list(folded), 1)
    return f"; did you mean {folded[matches[0]]}?" if matches else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"
