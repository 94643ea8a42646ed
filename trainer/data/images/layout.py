"""Which folders of a data set are its splits: the usual names in any case, and layouts that are none."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from trainer.errors import DataError

# The usual names of each split's folder, or of its part of a shard's name, in any case.
SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"), "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval")}
_SPLIT_OF = {name: split_name for split_name, names in SPLIT_NAMES.items() for name in names}
_FIX = "lay the images out as DATA_DIR/train/CLASS/image.jpg, with val/CLASS/ and test/CLASS/ beside"
_LISTED = 5


class Layout(NamedTuple):
    """Where the splits of a data set lie.

    Args:
        folders: {"train": folder} and, where there are any, "validation" and "test"; "" for the data's folder itself.
        warnings: A sentence for everything that holds images and is not used.
    """

    folders: dict[str, str]
    warnings: list[str]


def split_of(name: str) -> str | None:
    """The split that a folder or shard of a name holds: "train", "validation" or "test"; None for another name."""
    return _SPLIT_OF.get(name.casefold())


def find_layout(root: Path, images: Collection[str]) -> Layout:
    """Finds the splits' folders.

    A folder with the name of a split is one if it holds class folders; else it is a class of that name.

    Args:
        root: The data's folder.
        images: Names of the images, relative to the folder.

    Raises:
        DataError: if the layout is none, with what it may be meant to be.
    """
    holding = holding_folders(images)
    folders = split_folders(root, holding)
    if folders and "train" not in folders:
        raise DataError(f"{root} has {_list(folders.values())} but no train/ with class folders", _FIX)
    if not folders:
        _refuse_flat_splits(root, holding[""])
        folders = {"train": ""}
    _require_classes(root, folders["train"], holding)
    return Layout(folders, [*unused(root, folders, holding, images), *_beside(root, folders)])


def split_folders(root: Path, holding: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The splits' folders, of those that there are: {"train": folder}, "validation" and "test".

    Args:
        root: The data's folder.
        holding: As `holding_folders` returns it.

    Raises:
        DataError: if there are two folders for a split.
    """
    named: dict[str, list[str]] = {}
    for folder in sorted(holding[""]):
        if (split_name := split_of(folder)) and holding.get(folder):
            named.setdefault(split_name, []).append(folder)
    for split_name, folders in named.items():
        if len(folders) > 1:
            raise DataError(f"{root} has {len(folders)} folders for the {split_name} split: {_list(folders)}",
                            "put them together, or move one away")
    return {split_name: named[split_name][0] for split_name in SPLIT_NAMES if split_name in named}


def holding_folders(images: Collection[str]) -> dict[str, set[str]]:
    """{folder: names of the folders in it that hold images, at any depth}; "" is the data's folder."""
    holding: dict[str, set[str]] = {"": set()}
    for parent in {os.path.dirname(name) for name in images}:
        parts = parent.split("/") if parent else []
        for depth, part in enumerate(parts):
            holding.setdefault("/".join(parts[:depth]), set()).add(part)
    return holding


def _refuse_flat_splits(root: Path, top: Collection[str]) -> None:
    """Refuses train/ and test/ that hold images but no class folders: they would be two classes."""
    if top and all(map(split_of, top)):
        raise DataError(f"{_list(top)} in {root} hold images, but no class folders", _FIX)


def _require_classes(root: Path, train: str, holding: Mapping[str, Collection[str]]) -> None:
    """Refuses a training split without classes, or with a single one: the folder is often one level off."""
    classes = sorted(holding.get(train, ()))
    place = root / train
    if not classes:
        raise DataError(f"no images in class folders under {place}",
                        "lay them out as DATA_DIR/train/CLASS/image.jpg; if this is one class of several, set "
                        "--data_dir to the folder above it; --dataset=csv reads images that a CSV file lists")
    if len(classes) == 1:
        inner = os.path.join(train, classes[0])
        while len(holding.get(inner, ())) == 1:
            inner = os.path.join(inner, *holding[inner])
        deeper = (f"set {shlex.quote('--data_dir=' + shown(str(root / inner)))}, which holds {_list(holding[inner])}"
                  if holding.get(inner) else "add a folder of images for each other class")
        raise DataError(f"all images under {place} are of one class, {shown(classes[0])}: there is nothing to tell "
                        "apart", deeper)


def unused(root: Path, folders: Mapping[str, str], holding: Mapping[str, Collection[str]],
           images: Collection[str]) -> list[str]:
    """A sentence for what holds images beside the splits' folders.

    Args:
        root: The data's folder.
        folders: The splits' folders; "" for the data's folder itself.
        holding: As `holding_folders` returns it.
        images: Names of the images, relative to the data's folder.
    """
    if "" in folders.values():
        return []
    others = [f"{shown(folder)}/" for folder in sorted(holding[""]) if folder not in folders.values()]
    loose = sum("/" not in name for name in images)
    others += [f"{loose:,} images beside the folders"] if loose else []
    return [f"not used in {root}: {_join(others)}; the splits are {_list(folders.values())}"] if others else []


def _beside(root: Path, folders: Mapping[str, str]) -> list[str]:
    """A sentence if the data's folder is itself a train/ with other splits beside it."""
    above = Path(os.path.abspath(root))
    if folders["train"] or split_of(above.name) != "train":
        return []
    try:
        beside = [entry.name for entry in os.scandir(above.parent)
                  if split_of(entry.name) in ("validation", "test") and entry.is_dir() and any(Path(entry).iterdir())]
    except OSError:
        return []
    return [f"not used: {_list(beside)} beside {root}; "
            f"{shlex.quote(f'--data_dir={above.parent}')} would use it"] if beside else []


def _list(folders: Collection[str]) -> str:
    return _join([f"{shown(folder)}/" for folder in sorted(folders)])


def _join(names: Collection[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_LISTED]) + (f" and {len(listed) - _LISTED:,} more" if len(listed) > _LISTED else "")


def shown(name: str) -> str:
    """A file's name in characters that a terminal and a JSON file can hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
