"""Which files of a folder are TFRecord shards, and of which split: by the names that people give them.

    train-00000-of-01024, NAME-train.tfrecord-00000-of-00004, train_00000-of-00004.tfrecord      numbered
    train.tfrecord, NAME_train.tfrecords, train00-512.tfrec, train/00-224x224.tfrec               not numbered
    NAME.tfrecord, NAME.tfrecord-00000-of-00004       all of them to train on, where no name has a split

Any usual name of a split (layout.py) may stand in place of train, in any case.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from trainer.data.images.layout import SPLIT_NAMES, split_of
from trainer.errors import DataError

_NUMBER = r"(?:[-_]?(\d+)[-_]of[-_](\d+))?"
_NAME = re.compile(rf"(?P<stem>.*?){_NUMBER}(?P<ending>\.tfrecords?|\.tfrec|\.records?)?{_NUMBER}", re.IGNORECASE)
_COMPRESSED = {".gz": "gunzip", ".gzip": "gunzip -S .gzip", ".bz2": "bunzip2", ".zst": "unzstd --rm", ".xz": "unxz"}
_OTHER_FORMATS = re.compile(r".*\.(array_?record|riegeli)(-\d+-of-\d+)?", re.IGNORECASE)


class Shard(NamedTuple):
    """What a name says.

    Args:
        path: The file.
        split_name: "train", "validation", "test", or None if the name doesn't say it.
        group: What the names of all shards of a split have in common.
        number, count: Its number, and that of all; -1 if the name has none.
    """

    path: Path
    split_name: str | None
    group: str
    number: int
    count: int


class Found(NamedTuple):
    """The shards of a folder.

    Args:
        by_split: "train", "validation" and "test", where there are any, to paths.
        unused: Names of shards of no split, where others have one.
    """

    by_split: dict[str, list[Path]]
    unused: list[str]


def is_shard_name(path: Path) -> bool:
    """Whether a file of a path may be a TFRecord shard, by its name and that of its folder."""
    return _parsed(path, split_of(path.parent.name)) is not None


def split_in_name(path: Path) -> str | None:
    """The split that a shard's name, or that of its folder, says; None if it says none."""
    shard = _parsed(path, split_of(path.parent.name))
    return shard and shard.split_name


def find_shards(folder: Path) -> Found:
    """Finds the TFRecord shards of a folder, and of the folders in it that are called as splits are.

    Raises:
        DataError: if one of a split's shards is missing or compressed, or a split has shards of two names.
    """
    shards = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        inner_split = split_of(path.name) if path.is_dir() else None
        for inner in sorted(path.iterdir()) if inner_split else [path]:
            if inner.is_file() and (shard := _parsed(inner, inner_split)):
                shards.append(shard)
    named = [shard for shard in shards if shard.split_name]
    unused = [shard.path.name for shard in shards if named and not shard.split_name]
    groups: dict[tuple[str, str, int], list[Shard]] = {}
    for shard in named or shards:
        groups.setdefault((shard.split_name or "train", shard.group, shard.count), []).append(shard)
    by_split: dict[str, list[Path]] = {}
    for (split_name, _, count), members in sorted(groups.items()):
        if split_name in by_split:
            raise DataError(f"{folder} has two sets of {split_name} shards: {by_split[split_name][0].name} and "
                            f"{members[0].path.name}", "put one of them elsewhere")
        by_split[split_name] = _in_order(folder, split_name, members, count)
    return Found({name: by_split[name] for name in SPLIT_NAMES if name in by_split}, unused)


def _parsed(path: Path, inner_split: str | None) -> Shard | None:
    """What a file's name says; None if it is not that of a shard. `inner_split` is the split of the file's folder."""
    name = path.name
    if path.suffix.lower() in _COMPRESSED and _parsed(path.with_suffix(""), inner_split):
        raise DataError(f"{path} is compressed; records are read from the middle of files, which can't be",
                        f"{_COMPRESSED[path.suffix.lower()]} {shlex.quote(str(path))} (and each of the others), then "
                        "run the same command again")
    if _OTHER_FORMATS.fullmatch(name):
        raise DataError(f"{path} is not a TFRecord; ArrayRecord and Riegeli files are not read",
                        "write the data set as TFRecords (TensorFlow Datasets: file_format='tfrecord')")
    match = _NAME.fullmatch(name)
    assert match  # any name does
    stem, first, first_count, ending, last, last_count = match.groups()
    count = int(first_count or last_count or -1)
    words = re.findall(r"[a-z]+", stem.lower())
    split_name = inner_split or next(filter(None, map(split_of, reversed(words))), None)
    is_plain = count > 0 and (inner_split or (words and split_of(words[-1])))  # train-00000-of-01024
    if not (ending or is_plain) or name.startswith("."):
        return None
    if inner_split:
        group = f"{path.parent.name}/{stem if count > 0 else ''}"
    elif count > 0:
        group = stem
    else:  # train_0 and train_1 belong together, mnist_train and cifar_train don't
        group = "".join(words) if split_name else ""
    return Shard(path, split_name, group, int(first or last or -1), count)


def _in_order(folder: Path, split_name: str, shards: Iterable[Shard], count: int) -> list[Path]:
    """The paths of a split's shards, in the order of their numbers, or else of their names."""
    if count < 0:
        return sorted(shard.path for shard in shards)
    by_number = {shard.number: shard.path for shard in shards}
    missing = sorted(set(range(count)) - by_number.keys())
    if missing:
        raise DataError(f"{folder} has {len(by_number):,} of {count:,} {split_name} shards; the first that is missing "
                        f"is number {missing[0]}", "put all shards there")
    return [by_number[number] for number in range(count)]
