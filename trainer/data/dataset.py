"""What a data set is to the rest of the program, and how one is found by its name."""

import dataclasses
import hashlib
import importlib
import json

import numpy as np

from trainer.data.array_split import ArraySplit
from trainer.data.bad_examples import BadExamples
from trainer.data.split import Split
from trainer.errors import DataError

_LISTED = 12  # classes whose counts are told one by one


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled set of images.

    Args:
        name: As in `--dataset`.
        classes: Their names, in the order of the labels.
        image_shape: (height, width, channels) of what the model sees.
        train, test: The two `Split`s.
        parts: Name to hash of what the data is made of: files, shards, classes. Two data sets with the
            same parts hold the same images and labels.
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
        """Changes when any image or label does."""
        text = json.dumps([self.classes, self.image_shape, sorted(self.parts.items())])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def fingerprints(self):
        """What must be the same wherever a job reads the data: fingerprint and parts, a dict."""
        return {"fingerprint": self.fingerprint, "classes": list(self.classes), **self.parts}

    def sentence(self):
        """How much there is of what, for people."""
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

    def require_same(self, fingerprint, parts):
        """Makes sure that this is the data of a run.

        Args:
            fingerprint: What the run's data had.
            parts: Likewise, or None where nobody knows.

        Raises:
            DataError: saying what is not as it was.
        """
        if fingerprint == self.fingerprint:
            return
        parts = parts or {}
        changed = [f"{name} is {'new' if name not in parts else 'gone' if name not in self.parts else 'another one'}"
                   for name in sorted(parts.keys() | self.parts.keys()) if parts.get(name) != self.parts.get(name)]
        what = "; ".join(changed[:5]) or "its classes or image size differ"
        more = f"; and {len(changed) - 5:,} more" if len(changed) > 5 else ""
        raise DataError(f"the data is not what it was when this run began: {what}{more}",
                        "put the old data back, name its folder with --data_dir, or start anew in another --model_dir")

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
    """The SHA-256 of arrays of images and labels: of their shapes and of every byte."""
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
    kind = config.dataset
    if ":" in kind:
        kind = "_tfds" if kind.startswith("tfds:") else "_custom"
    return importlib.import_module(f"trainer.data.sources.{kind}").load(config)
