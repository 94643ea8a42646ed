"""What a data set is to the rest of the program, and how one is found by its name."""

import dataclasses
import hashlib
import importlib
import json

import numpy as np

from trainer.data.arrays import ArraySplit
from trainer.data.bad import BadExamples
from trainer.data.split import Split


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled set of pictures.

    Args:
        name: As in `--dataset`.
        classes: Their names, in the order of the labels.
        image_shape: (height, width, channels) of what the model sees.
        train, test: The two `Split`s.
        parts: Name to hash of what the data is made of: files, shards, classes. Two data sets with the
            same parts hold the same pictures and labels.
        bad: What can't be used of it.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Split
    test: Split
    parts: dict[str, str]
    bad: BadExamples = dataclasses.field(default_factory=BadExamples)

    @property
    def fingerprint(self):
        """Changes when any picture or label does."""
        text = json.dumps([self.classes, self.image_shape, sorted(self.parts.items())])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def balanced_weights(self):
        """For each class the factor that makes all count the same: float32 [classes], N / (classes · n of the class).

        The mean over the training examples is 1; a class without examples gets 0.
        """
        counts = np.bincount(self.train.labels, minlength=len(self.classes))
        return np.where(counts, self.train.size / (len(counts) * np.maximum(counts, 1)), 0).astype(np.float32)


def in_memory(name, classes, train, test, parts=None):
    """Makes a `Dataset` of arrays.

    Args:
        name, classes: As in `Dataset`.
        train, test: (images uint8 [n, height, width, channels], labels int [n]) each.
        parts: As in `Dataset`; None for a hash of every byte of both splits.

    Returns:
        The `Dataset`.
    """
    splits = [ArraySplit(*arrays) for arrays in (train, test)]
    parts = parts or {half: digest(split.images, split.labels)
                      for half, split in zip(("train", "test"), splits, strict=True)}
    return Dataset(name, tuple(classes), splits[0].images.shape[1:], *splits, parts)


def digest(images, labels):
    """The SHA-256 of arrays of pictures and labels: of their shapes and of every byte."""
    found = hashlib.sha256(repr(images.shape).encode())
    found.update(np.ascontiguousarray(images))
    found.update(np.ascontiguousarray(labels, np.int32))
    return found.hexdigest()


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
