"""The images that CSV files list: which there are, of which split and class.

    --data_dir=labels.csv       all images, with a column of splits or without one
    --data_dir=FOLDER           train.csv, with val.csv and test.csv beside it, or a single CSV file

Files are named relative to the CSV file, or to one folder beside it, such as images/ or train/.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.csv_files.table import ENDINGS, Row, read_table
from trainer.data.images import pillow_reader
from trainer.data.images.class_folders import Division, complete
from trainer.data.images.folder_scan import Scan, read_headers
from trainer.data.images.layout import SPLIT_NAMES, shown, split_of
from trainer.errors import DataError, first_few

if TYPE_CHECKING:
    from trainer.data.bad_examples import BadExamples

_LISTED = 5
_Classes = dict[str, list[str]]


def find_listed(source: Path, fraction: float | None, bad: BadExamples,
                memory: Path | str | None = None) -> tuple[Path, Scan, Division]:
    """Finds the images that CSV files list, and reads their headers.

    Args:
        source: A CSV file, or a folder that holds some.
        fraction: `--validation_fraction`; None where it isn't given.
        bad: Where each row is noted that can't be used, with its line.
        memory: The folder in which to remember what was read; None to remember nothing.

    Returns:
        (the folder that the names are relative to, the images that there are, their splits and classes).

    Raises:
        DataError: if there are none, or a file is listed with two classes or in two splits.
        UsageError: if a fraction is given beside a validation split.
    """
    tables, warnings = _tables(source)
    listed, places = _Listed(source if source.is_dir() else source.parent, bad), {}
    for split_name, path in tables.items():
        files = _Files(path, split_name if len(tables) > 1 else None)
        rows, has_labels = read_table(path, files.exist)
        if not has_labels:
            if split_name != "test":
                raise DataError(f"{path} has no column of labels", "call one of its columns label")
            warnings.append(f"not used: {path}, which has no labels")
            continue
        listed.add(path, rows, files, split_name, by_column=len(tables) == 1)
        places[split_name] = path.name
    by_split = listed.by_split()
    bad.check()
    if "train" not in by_split:
        raise DataError(f"{source} lists no image to train on that is there"
                        + (f"; {bad.names()[0]}" if bad.here else ""),
                        "name files relative to the CSV file, and say train in the column of splits if there is one")
    if listed.repeated:
        warnings.append(f"{listed.repeated:,} rows of {source} list an image again; each is used once")
    images = read_headers(listed.root, listed.stats, memory)
    places = {name: places.get(name, f"rows of {name} in {source.name}") for name in by_split}
    return listed.root, Scan(images, {}, set()), complete(
        listed.root, by_split, places, fraction=fraction, warnings=warnings, classes=listed.classes())


def _tables(source: Path) -> tuple[dict[str, Path], list[str]]:
    """({split: CSV file}, what to warn of); the one file of a set without split files is that of "train"."""
    if not source.is_dir():
        beside = [path.name for path in (_csv_files(source.parent) if source.is_file() else ())
                  if path.name != source.name and _split_in(path) in ("validation", "test")]
        return {"train": source}, ([f"not used: {first_few(beside)} beside {source.name}; "
                                    f"{shlex.quote(f'--data_dir={source.parent}')} would use it"]
                                   if beside and _split_in(source) == "train" else [])
    by_split: dict[str, Path] = {}
    files = _csv_files(source)
    for path in files:
        if split_name := _split_in(path):
            if split_name in by_split:
                raise DataError(f"{source} has two CSV files for the {split_name} split: "
                                f"{by_split[split_name].name} and {path.name}", "put them together, or move one away")
            by_split[split_name] = path
    if not by_split and len(files) == 1:
        return {"train": files[0]}, []
    if "train" not in by_split:
        names = first_few([path.name for path in files]) or "no CSV file"
        raise DataError(f"{source} has {names}, and no train.csv",
                        "set --data_dir to the CSV file, or call its files train.csv, val.csv and test.csv")
    unused = [path.name for path in files if path not in by_split.values()]
    return ({name: by_split[name] for name in SPLIT_NAMES if name in by_split},
            [f"not used in {source}: {first_few(unused)}"] if unused else [])


def _csv_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())


def _split_in(path: Path) -> str | None:
    """The split that a file's or folder's name holds."""
    words = re.findall(r"[a-z]+", path.stem.lower())
    return next(filter(None, map(split_of, reversed(words))), None)


class _Files:
    """Finds the image files that a CSV file names.

    All are relative to one folder: that of the CSV file, or the one in it where the first file is that is found, of
    those for the split if there are such. Names may lack an ending.

    Args:
        table: The CSV file.
        split_name: The split of all its images, or None.
    """

    def __init__(self, table: Path, split_name: str | None) -> None:
        inner = sorted(path for path in table.parent.iterdir() if path.is_dir()) if table.parent.is_dir() else []
        of_split = [path for path in inner if split_name and _split_in(path) == split_name]
        self._table, self._folders = table, [table.parent, *(of_split or inner)]
        self._folder: Path | None = None
        self._ending = ""

    def exist(self, name: str) -> bool:
        """Whether there is a file of a name."""
        return self.find(name) is not None

    def find(self, name: str) -> tuple[str, os.stat_result] | None:
        """(path relative to the CSV file's folder, what the system says of the file), or None.

        Raises:
            DataError: if several folders have the first of them.
        """
        if not name or len(name) > 4096:
            return None
        if self._folder:
            return self._find_in(self._folder, name)
        found = [(folder, file) for folder in self._folders if (file := self._find_in(folder, name))]
        if not found:
            return None
        if len(found) > 1 and found[0][0] != self._table.parent:
            raise DataError(f"{self._table}: {name} is in several folders: "
                            f"{first_few([f'{folder.name}/' for folder, _ in found])}",
                            "name the folder in the CSV file, as in images/1.jpg")
        self._folder, file = found[0]
        return file

    def _find_in(self, folder: Path, name: str) -> tuple[str, os.stat_result] | None:
        endings = ["", self._ending] if self._ending else [""]
        if not name.lower().endswith(pillow_reader.endings()):
            endings += [".jpg", ".png", ".jpeg", ".JPG", *pillow_reader.endings()]
        for candidate in dict.fromkeys((name, name.replace("\\", "/"))):
            for ending in endings:
                path = os.path.normpath(os.path.join(folder, candidate + ending))
                try:
                    stat = os.stat(path)
                except (OSError, ValueError):
                    continue
                if os.path.isfile(path):
                    self._ending = ending
                    return _relative(path, self._table.parent), stat
        return None


def _relative(path: str, folder: Path) -> str:
    """A path relative to a folder, if it is below it."""
    relative = os.path.relpath(path, folder)
    return path if relative.startswith(os.pardir) and os.path.isabs(path) else relative


class _Listed:
    """Gathers the images of all rows.

    Args:
        root: The folder that names are relative to.
        bad: Where each row is noted that can't be used.

    Attributes:
        root: The folder that names are relative to.
        stats: Name to what the system says of the file.
        repeated: How many rows say of an image again what an earlier one said.
    """

    def __init__(self, root: Path, bad: BadExamples) -> None:
        self.root, self._bad = root, bad
        self.stats: dict[str, os.stat_result] = {}
        self.repeated = 0
        self._said: dict[str, tuple[str, str, str]] = {}  # name to (split, label, where)

    def add(self, path: Path, rows: Sequence[Row], files: _Files, split_name: str, *, by_column: bool) -> None:
        """Adds the rows of a CSV file, of a split unless its column of splits says it."""
        for row in rows:
            where = f"{path.name}, line {row.line:,}"
            chosen = split_of(row.split) if by_column and row.split is not None else split_name
            label = unicodedata.normalize("NFC", row.label)
            found = files.find(row.file)
            if not found or not label or not chosen:
                self._bad.note_file(where, _problem(row, chosen))
                continue
            name, stat = found
            before = self._said.setdefault(name, (chosen, label, where))
            if before[:2] != (chosen, label):
                raise DataError(f"{shown(name)} is {before[1]} to {_verb(before[0])} in {before[2]}, and {label} to "
                                f"{_verb(chosen)} in {where}", "list each image once")
            self.repeated += name in self.stats
            self.stats[name] = stat

    def _labels(self) -> dict[str, str]:
        """Each label to the name of its class: whole numbers that a program wrote as fractions, 1.0, without them."""
        labels = {label for _, label, _ in self._said.values()}
        if all(re.fullmatch(r"-?\d+(\.0*)?", label) for label in labels):
            return {label: label.split(".")[0] for label in labels}
        return {label: label for label in labels}

    def classes(self) -> tuple[str, ...]:
        """The names of the training split's classes: numbers by their value, all others as text."""
        classes = sorted(self.by_split()["train"])
        if all(re.fullmatch(r"-?\d+", name) for name in classes):
            classes.sort(key=int)
        return tuple(classes)

    def by_split(self) -> dict[str, _Classes]:
        """{split: {class: names}}, with each class of the training split in all; names in order."""
        names = self._labels()
        splits: dict[str, _Classes] = {}
        for name, (split_name, label, _) in sorted(self._said.items()):
            splits.setdefault(split_name, {}).setdefault(names[label], []).append(name)
        return {name: splits[name] for name in SPLIT_NAMES if name in splits}


def _verb(split_name: str) -> str:
    return {"train": "train on", "validation": "validate on", "test": "test on"}[split_name]


def _problem(row: Row, split_name: str | None) -> str:
    """What is wrong with a row, in a few words."""
    if not row.file:
        return "it names no file"
    if "://" in row.file:
        return f"{row.file} is an address; images are read from disks, so download them first"
    if not row.label:
        return "it has no label"
    return f"{shown(row.file)} is not there" if split_name else f"its split is {row.split!r}, not train, val or test"
