"""The index of a folder of TFRecord shards: where every image lies, and what it must be.

    dataset.json        classes, counts, shards with their SHA-256, what was left out
    train.index.npy     a row per image: shard, offset and length of the encoded image in its shard, CRC-32, label, and
                        what its header says; validation.index.npy and test.index.npy where there are such splits

With it any image is one read away, and a shard is never searched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.images import pillow_reader
from trainer.data.images.layout import SPLIT_NAMES
from trainer.data.records.shard_names import is_shard_name, split_in_name
from trainer.errors import DataError, raise_if_transient
from trainer.storage import durable

NAME, VERSION = "dataset.json", 1
ROW = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("crc", "<u4"), ("label", "<i4"),
                ("width", "<u4"), ("height", "<u4"), ("kind", "u1"), ("orientation", "u1")])
_EDGE = 2**16  # bytes at both ends of a shard that are checked whenever it is opened


@dataclasses.dataclass(frozen=True)
class IndexedSplit:
    """A split's shards and images.

    Args:
        shards: For each shard a dict: file (relative to the index), examples, bytes, sha256, edges_sha256.
        rows: Of `ROW`, in the order in which the images lie.
        problems: Rows of images that can't be used to what is wrong with them.
    """

    shards: list[dict[str, Any]]
    rows: np.ndarray
    problems: dict[int, str]

    def numbers(self) -> np.ndarray:
        """The number of each row in its shard: int64 [n]."""
        counts = np.bincount(self.rows["shard"], minlength=len(self.shards))
        return np.arange(len(self.rows)) - np.repeat(np.cumsum(counts) - counts, counts)


def write(folder: Path | str, classes: Sequence[str], splits: Mapping[str, IndexedSplit], channels: int,
          **metadata: Any) -> None:
    """Writes an index; dataset.json comes last and makes it count.

    Args:
        folder: The folder for the index.
        classes: Names of the classes, in the order of the labels.
        splits: The splits by name.
        channels: 1 if all images are grey, else 3.
        **metadata: Further entries of dataset.json.
    """
    folder, described = Path(folder), {}
    for name, split in splits.items():
        path = folder / f"{name}.index.npy"
        staged = path.with_name(f".{path.name}.new.npy")
        np.save(staged, split.rows)
        durable.flush(staged)
        staged.rename(path)
        described[name] = {
            "examples": len(split.rows), "counts": np.bincount(split.rows["label"], minlength=len(classes)).tolist(),
            "index": {"file": path.name, "sha256": durable.sha256(path)}, "shards": split.shards,
            "problems": {str(row): problem for row, problem in split.problems.items()}}
    durable.write_durably(folder / NAME, json.dumps(
        {"format": "lockstep-records", "version": VERSION, "classes": list(classes), "channels": channels, **metadata,
         "splits": described},
        indent=2))


def read(folder: Path | str) -> tuple[tuple[str, ...], dict[str, IndexedSplit], int]:
    """Reads an index and checks whether its shards are there.

    Args:
        folder: The folder with dataset.json.

    Returns:
        (classes, {"train": `IndexedSplit`} and "validation" and "test" where there are any, channels of the images).

    Raises:
        DataError: naming what is missing or damaged.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}",
                            f"set --data_dir to the folder that holds {NAME} and the shards") from None
        command = shlex.join(["python", "-m", "trainer", "prepare", f"--data_dir={folder}", f"--out={folder}"])
        raise DataError(f"{folder} has no {NAME}: its records have no index",
                        f"make one: {command} (TFRecord shards stay as they are; class folders of images need another "
                        "--out)") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError):
            raise_if_transient(error, folder / NAME)
        raise _damaged(folder / NAME, error) from None
    try:
        if (described["format"], described["version"]) != ("lockstep-records", VERSION):
            raise ValueError(f"it is of {described['format']!r}, version {described['version']!r}")
        classes = tuple(described["classes"])
        if not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError("it names no classes")
        splits = described["splits"]
        by_split = {name: _read_split(folder, splits[name], len(classes))
                    for name in SPLIT_NAMES if name == "train" or name in splits}
        channels = described.get("channels", 3)
        if channels not in (1, 3):
            raise ValueError(f"its images have {channels!r} channels, not 1 or 3")
        return classes, _named_by_shards(folder, by_split), channels
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder / NAME, error) from None


def _named_by_shards(folder: Path, by_split: dict[str, IndexedSplit]) -> dict[str, IndexedSplit]:
    """The splits of an index; one that calls validation shards a test split was made when there was no other name."""
    test = by_split.get("test")
    if test and "validation" not in by_split and test.shards and all(
            split_in_name(folder / shard["file"]) == "validation" for shard in test.shards):
        return {"train": by_split["train"], "validation": test}
    return by_split


def _read_split(folder: Path, described: Any, classes: int) -> IndexedSplit:
    path = folder / str(described["index"]["file"])
    if path.parent != folder or (path.exists() and not path.is_file()):
        raise ValueError(f"it names {described['index']['file']!r} as an index, which is not a regular file beside it")
    try:
        if durable.sha256(path) != described["index"]["sha256"]:
            raise ValueError("its SHA-256 differs from dataset.json's")
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise_if_transient(error, path)
        raise _damaged(path, error) from None
    shards = described["shards"]
    for shard in shards:
        _require_shard(_shard_path(folder, str(shard["file"])), int(shard["bytes"]), str(shard["edges_sha256"]))
    if rows.dtype != ROW or rows.ndim != 1 or len(rows) != described["examples"]:
        raise ValueError(f"{path.name} doesn't hold the rows that {NAME} describes")
    if len(rows) and (rows["shard"].max() >= len(shards) or rows["label"].min() < 0 or rows["label"].max() >= classes):
        raise ValueError(f"{path.name} refers to shards or classes that do not exist")
    _require_rows(path.name, rows, np.array([int(shard["bytes"]) for shard in shards], np.uint64))
    problems = {int(row): str(problem) for row, problem in described["problems"].items()}
    if any(not 0 <= row < len(rows) for row in problems):
        raise ValueError(f"it tells of problems with rows that {path.name} does not have")
    return IndexedSplit(shards, rows, problems)


def _require_rows(name: str, rows: np.ndarray, sizes: np.ndarray) -> None:
    """Makes sure that no row asks for more than its shard holds, or for an image that is too large to be decoded.

    Args:
        name: The file's name, as a user reads it.
        rows: Of `ROW`.
        sizes: uint64, the bytes of each shard.

    Raises:
        ValueError: naming the first row that asks for more.
    """
    ends = rows["offset"] + rows["length"]
    shards = sizes[rows["shard"]]
    pixels = rows["width"].astype(np.uint64) * rows["height"]
    wrong = ((rows["offset"] > shards) | (ends > shards) | (pixels < 1) | (pixels > pillow_reader.MOST_PIXELS)
             | (rows["kind"] > pillow_reader.TRANSPARENT_PNG) | (rows["orientation"] < 1) | (rows["orientation"] > 8))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"row {row:,} of {name} describes no image of its shard: "
                         f"{dict(zip(ROW.names or (), rows[row].tolist(), strict=True))}")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} can't be used ({error if str(error) else type(error).__name__})",
                     "restore it, or make it again with python -m trainer prepare")


def _shard_path(folder: Path, name: str) -> Path:
    """The path of a shard that an index names.

    An index may lie elsewhere than its shards, but then it may only name files that are called as shards are: an index
    from anywhere reads nothing else of this machine.

    Raises:
        ValueError: if the name is not allowed.
    """
    path = folder / name
    inside = os.path.normpath(path).startswith(os.path.normpath(folder) + os.sep)
    if not inside and not is_shard_name(path):
        raise ValueError(f"it names {name!r} as a shard, which is outside of its folder and not called as shards are")
    if path.exists() and not path.is_file():
        raise ValueError(f"it names {name!r} as a shard, which is not a regular file")
    return path


def _require_shard(path: Path, size: int, edges: str) -> None:
    """Makes sure that a shard has the size and the hash of both ends that its index says.

    Raises:
        DataError: if the shard is missing or another one.
    """
    try:
        actual_size = path.stat().st_size
        same = actual_size == size and edges_sha256(path) == edges
    except OSError as error:
        raise_if_transient(error, path)
        raise DataError(f"cannot read the shard {path}: {error.strerror}",
                        "put it there; dataset.json lists all shards") from None
    if not same:
        raise DataError(f"the shard {path} is not the one that the index was made of"
                        + (f": it has {actual_size:,} bytes, not {size:,}" if actual_size != size else ""),
                        "put the old one back, or make the index again with python -m trainer prepare")


def edges_sha256(path: Path) -> str:
    """The SHA-256 of a shard's first and last 64 KiB: finds an exchanged shard without reading all of it."""
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read(_EDGE))
        file.seek(max(0, path.stat().st_size - _EDGE))
        digest.update(file.read(_EDGE))
    return digest.hexdigest()


def describe_shard(path: Path, folder: Path, examples: int) -> dict[str, Any]:
    """The entry of a finished shard in an index.

    Args:
        path: The shard.
        folder: The folder of the index.
        examples: Number of images in the shard.

    Returns:
        The dict of `IndexedSplit.shards`.
    """
    return {"file": os.path.relpath(path, folder), "examples": examples, "bytes": path.stat().st_size,
            "sha256": durable.sha256(path), "edges_sha256": edges_sha256(path)}


def training_command(folder: Path | str) -> str:
    """The command that trains on prepared records, as it can be pasted.

    Args:
        folder: Where they lie.
    """
    return shlex.join(["python", "-m", "trainer.main", "--dataset=records", f"--data_dir={folder}"])
