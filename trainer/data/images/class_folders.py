"""What the names in a folder of class folders mean: splits and classes."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.data.bad_examples import BadExamples
    from trainer.data.images.folder_scan import Scan

TEST_NAMES = ("test", "val", "validation")
_FRACTION = 0.1
_USUAL = 224  # pixels a side


def divide(root: Path, scanned: Scan, fraction: float | None, bad: BadExamples) -> dict[str, dict[str, list[str]]]:
    """Which images belong to which split and class.

    Args:
        root: The data's folder.
        scanned: What the folder holds.
        fraction: The share of the images that become the test split if there is no folder for it; None for a tenth.
        bad: Where everything that doesn't belong is noted.

    Returns:
        {"train": {class: names}, "test": {class: names}}, names in order.

    Raises:
        DataError: if there is nothing to train or to test on.
    """
    top = {name for name in scanned.folders if "/" not in name}
    has_train = "train" in top
    test = next((name for name in TEST_NAMES if has_train and name in top), None)
    if test and fraction is not None:
        raise DataError(f"--validation_fraction={fraction} holds images of train/ back, but {root} has {test}/",
                        f"leave --validation_fraction out, or move {test}/ away")
    roots = {"train": "train" if has_train else "", **({"test": test} if test else {})}
    by_split = {split_name: _by_class(scanned, inner, bad) for split_name, inner in roots.items()}
    if not any(by_split["train"].values()):
        raise DataError(f"no images in class folders under {root}{'/train' if has_train else ''}",
                        "lay them out as DATA_DIR/train/CLASS/image.jpg (JPEG, PNG, WebP, BMP or GIF)")
    for name in by_split["train"]:
        if shown(name) != name:
            raise DataError(f"the class folder {shown(name)} has a name that is not Unicode", "rename it")
        if not by_split["train"][name]:
            bad.note_file(shown(os.path.join(roots["train"], name)), "this class has no images")
    if not test:
        by_split = _hold_back(by_split["train"], _FRACTION if fraction is None else fraction)
    unknown = sorted(by_split["test"].keys() - by_split["train"].keys())
    if unknown:
        raise DataError(f"{root / (test or '')} has classes that train/ doesn't have: {', '.join(map(shown, unknown))}",
                        "give both the same class folders")
    if not any(by_split["test"].values()):
        raise DataError(f"there is no image to test on under {root}",
                        "add test/CLASS/ folders, or hold more back with --validation_fraction")
    return by_split


def _by_class(scanned: Scan, inner: str, bad: BadExamples) -> dict[str, list[str]]:
    """{class: names} of the folder `inner`."""
    prefix = f"{inner}/" if inner else ""
    classes: dict[str, list[str]] = {}
    for folder in scanned.folders:
        if folder.startswith(prefix) and "/" not in folder[len(prefix):]:
            classes[_class_name(folder[len(prefix):])] = []
    for name in scanned.images:
        if name.startswith(prefix):
            label, slash, _ = name[len(prefix):].partition("/")
            if slash:
                classes[_class_name(label)].append(name)
            else:
                bad.note_file(shown(name), "it is not in a class folder")
    for name, problem in scanned.others.items():
        if name.startswith(prefix) and "/" in name[len(prefix):]:
            bad.note_file(shown(name), problem)
    return classes


def _class_name(folder: str) -> str:
    """A class's name: Unicode's composed form, because file systems differ in which form they store."""
    return unicodedata.normalize("NFC", folder)


def _hold_back(classes: Mapping[str, Sequence[str]], fraction: float) -> dict[str, dict[str, list[str]]]:
    """Divides the images of each class into a training split and a test split, which gets about `fraction` of them."""
    by_split: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, names in classes.items():
        held_back = {name: _unit_hash(name) < fraction for name in names}
        by_split["train"][label] = [name for name in names if not held_back[name]]
        by_split["test"][label] = [name for name in names if held_back[name]]
    return by_split


def _unit_hash(name: str) -> float:
    """A number from 0 to 1 that follows from a name."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def common_size(sizes: Collection[tuple[int, int]]) -> int:
    """The side of the model's images where `--image_size` is not set.

    Args:
        sizes: (width, height) of the images, each pair once.

    Returns:
        The side of the images in pixels if all are squares of one size, of up to 224 pixels; 224 otherwise.
    """
    (width, height), *others = sizes or [(_USUAL, _USUAL)]
    return width if not others and width == height <= _USUAL else _USUAL


def shown(name: str) -> str:
    """A file's name in characters that a terminal and a JSON file can hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
