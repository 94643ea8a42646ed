"""What a data set is to the rest of the program, and how one is found by its name."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.data.array_split import ArraySplit
from trainer.data.bad_examples import BadExamples
from trainer.data.split import Split
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.config import Config

_LISTED = 12  # most classes whose counts are listed one by one


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled set of images.

    Args:
        name: The value of `--dataset`.
        classes: Names of the classes, in the order of the labels.
        image_shape: (height, width, channels) of what the model sees.
        train: The images to train on.
        test: The images to test on.
        parts: Name to hash of what the data is made of: files, shards, classes. Two data sets with the same parts hold
            the same images and labels.
        bad: The images and files of it that can't be used.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Split
    test: Split
    parts: dict[str, str]
    bad: BadExamples = dataclasses.field(default_factory=BadExamples)

    @property
    def fingerprint(self) -> str:
        """A hash that changes when any image or label does."""
        text = json.dumps([self.classes, self.image_shape, sorted(self.parts.items())])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def fingerprints(self) -> dict[str, Any]:
        """The fingerprint, the classes and the parts, which must be the same on every worker that reads the data."""
        return {"fingerprint": self.fingerprint, "classes": list(self.classes), **self.parts}

    def sentence(self) -> str:
        """The human-readable summary of classes, sizes and shape."""
        counts = np.bincount(self.train.labels, minlength=len(self.classes))
        few, most = int(counts.argmin()), int(counts.argmax())
        if counts[few] == counts[most]:
            each = f"{counts[most]:,} of each"
        elif len(counts) <= _LISTED:
            each = ", ".join(f"{count:,} {name}" for name, count in zip(self.classes, counts, strict=True))
        else:
            each = f"{counts[few]:,} ({self.classes[few]}) to {counts[most]:,} ({self.classes[most]}) of each"
        return (f"{self.name}: {len(self.classes):,} classes, {self.train.size:,} images to train on, {each}; "
                f"{self.test.size:,} to test on; {' × '.join(map(str, self.image_shape))}")

    def require_same(self, fingerprint: str, parts: Mapping[str, str] | None) -> None:
        """Makes sure that this is the data of a run.

        Args:
            fingerprint: The fingerprint of the run's data.
            parts: The parts of the run's data; None where they are not known.

        Raises:
            DataError: naming the parts that changed.
        """
        if fingerprint == self.fingerprint:
            return
        parts = parts or {}
        changed = [f"{name} is {'new' if name not in parts else 'gone' if name not in self.parts else 'another one'}"
                   for name in sorted(parts.keys() | self.parts.keys()) if parts.get(name) != self.parts.get(name)]
        what = "; ".join(changed[:5]) or "its classes or image size differ"
        more = f"; and {len(changed) - 5:,} more" if len(changed) > 5 else ""
        raise DataError(f"the data is not what it was when this run began: {what}{more}",
                        "put the old data back, set --data_dir to its folder, or start anew in another --model_dir")

    def balanced_weights(self) -> np.ndarray:
        """The factor of each class that makes all count the same: float32 [classes], N / (classes · n of the class).

        The mean over the training examples is 1; a class without examples gets 0.
        """
        counts = np.bincount(self.train.labels, minlength=len(self.classes))
        return np.where(counts, self.train.size / (len(counts) * np.maximum(counts, 1)), 0).astype(np.float32)


def in_memory(name: str, classes: Sequence[str], train: tuple[np.ndarray, np.ndarray],
              test: tuple[np.ndarray, np.ndarray], parts: dict[str, str] | None = None) -> Dataset:
    """Makes a `Dataset` of arrays.

    Args:
        name: The value of `--dataset`.
        classes: Names of the classes, in the order of the labels.
        train, test: (images uint8 [n, height, width, channels], labels int [n]) each.
        parts: The parts of the `Dataset`; None for a hash of every byte of both splits.
    """
    train_split, test_split = (ArraySplit(*arrays) for arrays in (train, test))
    parts = parts or {split_name: digest(split.images, split.labels)
                      for split_name, split in (("train", train_split), ("test", test_split))}
    height, width, channels = train_split.images.shape[1:]
    return Dataset(name, tuple(classes), (height, width, channels), train_split, test_split, parts)


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """The SHA-256 of arrays of images and labels: of their shapes and of every byte."""
    sha256 = hashlib.sha256(repr(images.shape).encode())
    sha256.update(np.ascontiguousarray(images))  # pyright: ignore[reportArgumentType]  the stub knows no buffers
    sha256.update(np.ascontiguousarray(labels, np.int32))  # pyright: ignore[reportArgumentType]
    return sha256.hexdigest()


def load(config: Config) -> Dataset:
    """Reads or renders the data set that a configuration names.

    Raises:
        DataError: if it is missing or damaged.
    """
    kind = config.dataset
    if ":" in kind:
        kind = "_tfds" if kind.startswith("tfds:") else "_custom"
    return importlib.import_module(f"trainer.data.sources.{kind}").load(config)
