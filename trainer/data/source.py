"""What a data set is to the rest of the program, and how one is found by its name."""

import dataclasses
import hashlib
import importlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples in memory.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n], indices into the data set's classes.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def size(self):
        """Number of examples."""
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled set of pictures.

    Args:
        name: As in `--dataset`.
        classes: Their names, in the order of the labels.
        train, test: The two `Split`s.
        fingerprint: Changes when any picture or label does.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    fingerprint: str

    @property
    def image_shape(self):
        """(height, width, channels)."""
        return self.train.images.shape[1:]


def in_memory(name, classes, train, test):
    """Makes a `Dataset` of arrays.

    Args:
        name, classes: As in `Dataset`.
        train, test: (images, labels) each, as in `Split`.

    Returns:
        The `Dataset`, its fingerprint a SHA-256 over the classes and every byte of both splits.
    """
    digest = hashlib.sha256("\0".join(classes).encode())
    splits = []
    for images, labels in (train, test):
        split = Split(np.ascontiguousarray(images), np.ascontiguousarray(labels, np.int32))
        digest.update(repr(split.images.shape).encode())
        digest.update(split.images)
        digest.update(split.labels)
        splits.append(split)
    return Dataset(name, tuple(classes), *splits, fingerprint=f"sha256:{digest.hexdigest()}")


def load(config):
    """Reads or draws the data set that a configuration names.

    Args:
        config: The run's `Config`.

    Returns:
        The `Dataset`.

    Raises:
        DataError: if it is missing or damaged.
    """
    return importlib.import_module(f"trainer.data.{config.dataset}").load(config)
