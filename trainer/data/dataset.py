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
from trainer.data.held_back import fraction_to_hold_back, held_back
from trainer.data.split import Split
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.config import Config

_ALL = 0.995  # of an image, but for rounding
_LISTED = 12  # most classes whose counts are listed one by one


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled set of images.

    Args:
        name: The value of `--dataset`.
        classes: Names of the classes, in the order of the labels.
        image_shape: (height, width, channels) of what the model sees.
        train: The images to train on.
        test: The images to test on, at the end of a run; None if there are none.
        parts: Name to hash of what the data is made of: files, shards, classes. Two data sets with the same parts hold
            the same images and labels.
        bad: The images and files of it that can't be used.
        validation: The images that choose, from epoch to epoch; None if the test split must do for both.
        held_back: Whether the validation split was held back from the training split.
        warnings: A sentence for everything about the data that a user should know.
        pixels_version: The first version of `pixels` (storage/bit_versions.py) in which a model sees the images as it
            does here.
        seen: The share of the area of the images that evaluation sees, 0 to 1.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Split
    test: Split | None
    parts: dict[str, str]
    bad: BadExamples = dataclasses.field(default_factory=BadExamples)
    validation: Split | None = None
    held_back: bool = False
    warnings: tuple[str, ...] = ()
    pixels_version: int = 1
    seen: float = 1.0

    def __post_init__(self) -> None:
        assert self.test is not None or self.validation is not None, "a data set has something to evaluate on"

    @property
    def evaluated(self) -> Split:
        """The split that is evaluated from epoch to epoch: validation where there is one, else test."""
        split = self.test if self.validation is None else self.validation
        assert split is not None  # `__post_init__`
        return split

    @property
    def evaluated_name(self) -> str:
        """The name of the split that is evaluated from epoch to epoch: "validation" or "test"."""
        return "test" if self.validation is None else "validation"

    @property
    def splits(self) -> dict[str, Split]:
        """All splits that there are, by name: train, and validation or test or both."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def versions(self) -> dict[str, int]:
        """The first versions (storage/bit_versions.py) in which the images are divided and seen as they are here."""
        divided = self.held_back or (self.validation is not None and self.test is not None)
        return {"splits": 2 if divided else 1, "pixels": self.pixels_version}

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
        others = []
        if self.validation is not None:
            others.append(f"{self.validation.size:,} to validate on{', held back' if self.held_back else ''}")
        if self.test is not None:
            others.append(f"{self.test.size:,} to test on")
        return (f"{self.name}: {len(self.classes):,} classes, {self.train.size:,} images to train on, {each}; "
                f"{', '.join(others)}; {' × '.join(map(str, self.image_shape))}"
                + ("" if self.seen > _ALL else f", of the middle of the images: {self.seen:.0%} of their area "
                   "(--resize=squeeze or pad: all)"))

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


_Arrays = tuple[np.ndarray, np.ndarray]


def in_memory(name: str, classes: Sequence[str], train: _Arrays, test: _Arrays | None,
              parts: dict[str, str] | None = None, *, validation: _Arrays | None = None,
              validation_fraction: float | None = None) -> Dataset:
    """Makes a `Dataset` of arrays.

    Args:
        name: The value of `--dataset`.
        classes: Names of the classes, in the order of the labels.
        train, test, validation: (images uint8 [n, height, width, channels], labels int [n]) each; None for a split
            that there isn't.
        parts: The parts of the `Dataset`; None for a hash of every byte of all splits.
        validation_fraction: `--validation_fraction`; None where it isn't given.

    Raises:
        DataError: if there is nothing to evaluate on.
        UsageError: if a fraction is given beside a validation split.
    """
    given = {"train": train, "validation": validation, "test": test}
    splits = {split_name: ArraySplit(*arrays) for split_name, arrays in given.items() if arrays is not None}
    parts = parts or {split_name: digest(split.images, split.labels) for split_name, split in splits.items()}
    fraction = fraction_to_hold_back(
        validation_fraction, name, **{each: f"a {each} split" if each in splits else None
                                      for each in ("validation", "test")})
    if fraction:
        whole = splits["train"]
        mask = held_back(whole.labels, [b"%d" % example for example in range(whole.size)], fraction)
        splits |= {"train": whole.take(~mask), "validation": whole.take(mask)}
    height, width, channels = splits["train"].images.shape[1:]
    return Dataset(name, tuple(classes), (height, width, channels), splits["train"], splits.get("test"), parts,
                   validation=splits.get("validation"), held_back=bool(fraction))


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """The SHA-256 of arrays of images and labels: of their shapes and of every byte."""
    sha256 = hashlib.sha256(repr(images.shape).encode())
    sha256.update(np.ascontiguousarray(images))  # pyright: ignore[reportArgumentType]  the stub knows no buffers
    sha256.update(np.ascontiguousarray(labels, np.int32))  # pyright: ignore[reportArgumentType]
    return sha256.hexdigest()


def read(config: Config) -> Dataset:
    """The data set that a configuration names, as its source gives it, also of a single class.

    Raises:
        DataError: if it is missing or damaged.
        UsageError: if the configuration's settings can't be used with it.
    """
    kind = config.dataset
    if ":" in kind:
        kind = "_tfds" if kind.startswith("tfds:") else "_custom"
    return importlib.import_module(f"trainer.data.sources.{kind}").load(config)


def load(config: Config) -> Dataset:
    """Reads or renders the data set that a configuration names.

    Raises:
        DataError: if it is missing or damaged, has a single class, or a class without images to train on.
        UsageError: if the configuration's settings can't be used with it.
    """
    data = read(config)
    if len(data.classes) < 2:
        raise DataError(f"the data has a single class, {', '.join(data.classes)}: there is nothing to tell apart",
                        "add images of another class")
    counts = np.bincount(data.train.labels[data.train.usable], minlength=len(data.classes))
    missing = [data.classes[label] for label in np.flatnonzero(counts == 0)]
    if not missing:
        return data
    more = f" and {len(missing) - _LISTED:,} more" if len(missing) > _LISTED else ""
    cause = f"there are no images to train on of the class {', '.join(missing[:_LISTED])}{more}"
    if isinstance(data.train, ArraySplit):  # a part of a known data set, cut out to try something
        return dataclasses.replace(data, warnings=(*data.warnings, cause))
    raise DataError(cause, "add some, or leave the class out")
