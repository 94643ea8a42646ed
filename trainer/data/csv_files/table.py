"""A CSV file of images as people and programs write it: its rows of file, label and split.

Any of the usual separators and encodings with a mark; with a header in the usual words, or without one.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.data.images.layout import split_of
from trainer.errors import DataError, first_few, raise_if_transient

ENDINGS = (".csv", ".tsv")
_SEPARATORS = ",;\t|"
# What people call the columns, the most usual first; in any case, with blanks or dashes for underscores.
FILE = ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "image_file",
        "image_name", "image_id", "img", "img_path", "img_name", "id_code", "id", "name", "fname", "filenames",
        "images")
LABEL = ("label", "labels", "class", "class_name", "category", "target", "y", "label_name", "class_id", "label_id",
         "category_name", "category_id", "classes", "tag", "tags")
SPLIT = ("split", "set", "subset", "partition", "usage")
_VALID = "is_valid"  # fastai's: true for what validates
_TRUE = {"true": "validation", "1": "validation", "false": "train", "0": "train"}
_LOOKED_AT = 50  # rows from which the separator and the columns are found


class Row(NamedTuple):
    """A row of a CSV file.

    Args:
        line: The line on which it ends, from 1.
        file: The name of the image file, as it stands there.
        label: The name of the class; "" where there is none.
        split: What its column of splits says; None where there is no such column.
    """

    line: int
    file: str
    label: str
    split: str | None


class _Columns(NamedTuple):
    """Where the columns stand; `label` and `split` are None where there is no such column."""

    file: int
    label: int | None
    split: int | None
    has_header: bool


def read_table(path: Path, exists: Callable[[str], bool]) -> tuple[list[Row], bool]:
    """Reads a CSV file.

    Args:
        path: The file.
        exists: Whether there is an image file of a name: tells a first row from a header.

    Returns:
        (the rows, whether they have labels).

    Raises:
        DataError: if it can't be read, or its columns can't be told, naming the line.
    """
    rows = _cells(path)
    columns = _find_columns(path, [cells for _, cells in rows[:_LOOKED_AT]], exists)
    width = len(rows[0][1])
    table = []
    for line, cells in rows[columns.has_header:]:
        while len(cells) > width and not cells[-1]:
            cells = cells[:-1]
        if len(cells) > width:
            raise DataError(f"{path}, line {line:,}: it has {len(cells)} columns, the first line {width}",
                            "put names that hold the separator in double quotes")
        cells = cells + [""] * (width - len(cells))
        split = None if columns.split is None else cells[columns.split].casefold()
        if columns.has_header and split is not None and _word(rows[0][1][columns.split or 0]) == _VALID:
            split = _TRUE.get(split, split)
        table.append(Row(line, cells[columns.file], "" if columns.label is None else cells[columns.label], split))
    return table, columns.label is not None


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """(line, cells) of each row that isn't empty."""
    text = _text(path)
    separator = max(_SEPARATORS, key=lambda each: _fit(text, each))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise DataError(f"{path} can't be read as CSV: {error}", "write it again as a CSV file in UTF-8") from None
    if not rows:
        raise DataError(f"{path} is empty", "list the images in it: file,label")
    if len(rows[0][1]) < 2:
        raise DataError(f"{path} has a single column: {rows[0][1][0][:60]!r}",
                        "give it a column of files and one of labels, with commas between them")
    return rows


def _text(path: Path) -> str:
    """What a file holds, without the mark of its encoding."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise_if_transient(error, path)
        raise DataError(f"cannot read {path}: {error.strerror}",
                        "set --data_dir to the CSV file or its folder") from None
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line:,}: it is not UTF-8",
                        "save the file as UTF-8 (in Excel: CSV UTF-8)") from None
    return text.replace("\0", "")


def _fit(text: str, separator: str) -> tuple[bool, int]:
    """How well a separator fits: (whether the first rows have as many columns as each other, two or more; how many)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        widths = [len(cells) for cells, _ in zip(reader, range(_LOOKED_AT), strict=False) if cells]
    except csv.Error:
        return False, 0
    return len(set(widths)) == 1 and widths[0] > 1, widths[0] if widths else 0


def _word(cell: str) -> str:
    return cell.casefold().replace(" ", "_").replace("-", "_")


def _first(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Where the most usual of some names stands."""
    return next((header.index(name) for name in names if name in header), None)


def _find_columns(path: Path, rows: Sequence[Sequence[str]], exists: Callable[[str], bool]) -> _Columns:
    """Finds the columns by the header, or else by what stands in them."""
    header = [_word(cell) for cell in rows[0]]
    file, label, split = _first(header, FILE), _first(header, LABEL), _first(header, (*SPLIT, _VALID))
    by_content = [next((place for place, cell in enumerate(row) if exists(cell)), None) for row in rows[:2]]
    has_header = by_content[0] is None and (file is not None or label is not None or by_content[-1] is not None)
    if not has_header:
        split = next((place for place in range(len(header)) if all(
            len(row) > place and split_of(row[place]) for row in rows)), None)
        file, label = by_content[0], None
        if file is None:
            file = 1 if split == 0 else 0
    elif file is None:
        file = by_content[-1]
        if file is None:
            file = _only(place for place in range(len(header)) if place not in (label, split))
    taken = {file, split, *(place for place, name in enumerate(header) if has_header and name in ("", "unnamed:_0"))}
    others = [place for place in range(len(header)) if place not in taken]
    if file is None:
        raise DataError(f"{path}: none of its columns is known to name the images: {first_few(rows[0])}",
                        f"give the columns the names {FILE[0]} and {LABEL[0]}")
    if label is None and len(others) > 1:
        raise DataError(f"{path}: none of its columns is known to name the classes: {', '.join(rows[0][:8])}",
                        f"call one {LABEL[0]}; with a column for each class, write the name of the class into one")
    return _Columns(file, _only(others) if label is None else label, split, has_header)


def _only(places: Iterable[int]) -> int | None:
    """The one place that there is, or None."""
    listed = list(places)
    return listed[0] if len(listed) == 1 else None
