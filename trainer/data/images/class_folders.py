"""What the names in a folder of class folders mean: splits and classes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainer.data.held_back import fraction_to_hold_back, held_back
from trainer.data.images.layout import find_layout, shown
from trainer.errors import DataError, first_few

if TYPE_CHECKING:
    from trainer.data.bad_examples import BadExamples
    from trainer.data.images.folder_scan import Scan

_USUAL = 224  # pixels a side


class Division(NamedTuple):
    """Which images belong to which split and class.

    Args:
        by_split: {"train": {class: names}} and "validation" and "test" where there are any; names in order.
        by_folder: The same as the folders have it, before anything was held back.
        warnings: A sentence for everything that holds images and is not used.
        classes: The names of the classes, in the order of the labels.
    """

    by_split: dict[str, dict[str, list[str]]]
    by_folder: dict[str, dict[str, list[str]]]
    warnings: list[str]
    classes: tuple[str, ...]

    @property
    def held_back(self) -> bool:
        """Whether the validation split was held back from the training split."""
        return self.by_split.keys() != self.by_folder.keys()


def divide(root: Path, scanned: Scan, fraction: float | None, bad: BadExamples) -> Division:
    """Finds the splits and classes of a folder's images.

    Args:
        root: The data's folder.
        scanned: What the folder holds.
        fraction: `--validation_fraction`; None where it isn't given.
        bad: Where everything that doesn't belong is noted.

    Raises:
        DataError: if the layout is none, or a class has no images to train on.
        UsageError: if a fraction is given beside a validation split.
    """
    layout = find_layout(root, scanned.images)
    by_folder = {split_name: class_members(scanned, inner, bad) for split_name, inner in layout.folders.items()}
    classes = by_folder["train"]
    for name in classes:
        if shown(name) != name:
            raise DataError(f"the class folder {shown(name)} has a name that is not Unicode", "rename it")
    if empty := [name for name, names in classes.items() if not names]:
        raise DataError(f"there are no images to train on of the class {first_few(empty)} in "
                        f"{root / layout.folders['train']}", "add some, or remove the class's folders")
    places = {name: f"{shown(folder) or shown(str(root))}/" for name, folder in layout.folders.items()}
    return complete(root, by_folder, places, fraction=fraction, warnings=layout.warnings,
                    classes=tuple(sorted(classes)), prefix=places["train"] if layout.folders["train"] else "")


def complete(root: Path, by_folder: dict[str, dict[str, list[str]]], places: Mapping[str, str], *,
             fraction: float | None, warnings: list[str], classes: tuple[str, ...], prefix: str = "") -> Division:
    """Checks splits against each other, and holds images back where there is only one.

    Args:
        root: The data's folder.
        by_folder: As in `Division`; no class of the training split is empty.
        places: The name of each split's folder or file, as a user reads it.
        fraction: `--validation_fraction`; None where it isn't given.
        warnings, classes: As in `Division`.
        prefix: What the names of the training split begin with, and what doesn't decide which are held back.

    Raises:
        DataError: if a split has no image, or a class that the training split hasn't.
        UsageError: if a fraction is given beside a validation split.
    """
    for split_name, by_class in by_folder.items():
        unknown = sorted(by_class.keys() - by_folder["train"].keys())
        if unknown:
            raise DataError(f"{places[split_name]} in {root} has classes that {places['train']} doesn't have: "
                            f"{first_few(list(map(shown, unknown)))}", "give all splits the same classes")
        if not any(by_class.values()):
            raise DataError(f"there is no image in the class folders of {places[split_name]} in {root}",
                            "add some, or remove the folder")
    share = fraction_to_hold_back(fraction, str(root), **{name: places.get(name) for name in ("validation", "test")})
    return Division(_hold_back(by_folder, prefix, share) if share else by_folder, by_folder, warnings, classes)


def class_members(scanned: Scan, inner: str, bad: BadExamples) -> dict[str, list[str]]:
    """The classes in a folder.

    Args:
        scanned: What the data's folder holds.
        inner: The folder of class folders, relative to the data's; "" for the data's folder itself.
        bad: Where everything that doesn't belong is noted.

    Returns:
        {class: names of its images, relative to the data's folder}, also of folders without images.
    """
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


def _hold_back(by_folder: Mapping[str, dict[str, list[str]]], prefix: str,
               fraction: float) -> dict[str, dict[str, list[str]]]:
    """Moves a fraction of each class from the training split, whose names have `prefix`, into a validation split."""
    images = [(label, name) for label, names in by_folder["train"].items() for name in names]
    labels = np.unique([label for label, _ in images], return_inverse=True)[1]
    # Without the split's folder: the answer is the same whether there is a train/ or not.
    mask = held_back(labels, [os.fsencode(name[len(prefix):]) for _, name in images], fraction).tolist()
    divided: dict[str, dict[str, list[str]]] = {
        split_name: {label: [] for label in by_folder["train"]} for split_name in ("train", "validation")}
    for (label, name), is_held_back in zip(images, mask, strict=True):
        divided["validation" if is_held_back else "train"][label].append(name)
    return {**divided, **{name: by_class for name, by_class in by_folder.items() if name != "train"}}


def common_size(sizes: Collection[tuple[int, int]]) -> int:
    """The side of the model's images where `--image_size` is not set.

    Args:
        sizes: (width, height) of the images, each pair once.

    Returns:
        The side of the images in pixels if all are squares of one size, of up to 224 pixels; 224 otherwise.
    """
    (width, height), *others = sizes or [(_USUAL, _USUAL)]
    return width if not others and width == height <= _USUAL else _USUAL
