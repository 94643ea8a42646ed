"""Images in TFRecord shards with an index (index.py), read lane by lane (lanes.py).

The shards are made by `python -m trainer prepare`, from class folders; or another program made them with the keys of
TensorFlow's ImageNet records or TensorFlow Datasets' shards, and `prepare` makes the index alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.bad_examples import BadExamples
from trainer.data.dataset import Dataset
from trainer.data.held_back import fraction_to_hold_back, held_back
from trainer.data.images.class_folders import common_size
from trainer.data.images.crops import View
from trainer.data.images.encoded_split import EncodedSplit
from trainer.data.images.header_table import HeaderTable, pixels_version, seen_share
from trainer.data.images.layout import shown
from trainer.data.images.pillow_reader import GREY, OTHER, SEEN_OTHERWISE, TRANSPARENT_PNG
from trainer.data.images.stored_size import stored_size
from trainer.data.lanes import Lanes, lanes_of
from trainer.data.records import index
from trainer.errors import DataError
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.config import Config

_LARGE = 2**18  # bytes of a record
_OPEN = 256  # shards that are open at once, at most

# A read: path, offset, length and CRC of an image, its width and height as stored.
_Request = tuple[str, int, int, int, int, int]


class RecordSplit(EncodedSplit):
    """A split whose images lie in TFRecord shards.

    Args:
        folder: The folder of the index.
        indexed: The part of the index that the split is taken from.
        chosen: Which of its rows are the split's: int [n], in order.
        lanes: How many lanes are wanted.
        view, augment, bad: As in `EncodedSplit`.
        grey: Whether all images are grey; None: if the model's are.
    """

    def __init__(self, folder: Path, indexed: index.IndexedSplit, chosen: np.ndarray, lanes: int, view: View,
                 augment: Sequence[str], bad: BadExamples, grey: bool | None = None) -> None:
        rows = indexed.rows[chosen]
        self._paths = [os.path.join(folder, shard["file"]) for shard in indexed.shards]
        self._rows, self._lanes, self._files = rows, lanes, _OpenFiles(_OPEN)
        self._numbers = indexed.numbers()[chosen]
        # Several steps are under way at once: small records are fetched by the step, which is faster, large ones
        # only when their turn to be decoded comes.
        self._one_by_one = bool(rows["length"].mean() > _LARGE)
        # An index says nothing of transparency (what `prepare` writes has none), and of grey only if all images are.
        traits = SEEN_OTHERWISE * np.isin(rows["kind"], (OTHER, TRANSPARENT_PNG)).astype(np.uint8)
        traits |= np.uint8(GREY if (view.channels == 1 if grey is None else grey) else 0)
        headers = HeaderTable(rows["kind"], rows["width"].astype(np.int32), rows["height"].astype(np.int32),
                              rows["orientation"], traits, _problems(indexed.problems, chosen))
        super().__init__(rows["label"], headers, view, augment, bad)

    def order(self, seed: int, batch_size: int) -> Lanes:
        """The order in which training sees the examples: lane by lane."""
        return Lanes(seed, self.size, batch_size, lanes_of(self._lanes, batch_size))

    def fetch(self, ids: np.ndarray) -> np.ndarray:
        """The encoded images of examples, b"" for those that can't be read; where records are large, the ids."""
        requests, fetched = self._requests(ids), np.empty(len(ids), object)
        self._files.expect(requests)
        fetched[:] = ([b"%d" % example for example in ids.tolist()] if self._one_by_one else
                      [self._read_or_nothing(request) for request in requests])
        return fetched

    def encoded(self, fetched: tf.Tensor) -> tf.Tensor:
        """The encoded image that `fetch` gave, or whose id it gave."""
        if not self._one_by_one:
            return fetched
        return tf.ensure_shape(tf.numpy_function(self._fetch_one, [fetched], tf.string, stateful=False), [])

    def load(self, example: int) -> bytes:
        """The encoded image, as `EncodedSplit.load` describes it."""
        return self._read(self._requests([example])[0])

    def _fetch_one(self, example: bytes) -> bytes:
        # b"" stands for an image that is known to be unusable.
        return self._read_or_nothing(self._requests([int(example)])[0]) if example else b""

    def _read_or_nothing(self, request: _Request) -> bytes:
        try:
            return self._read(request)
        except (OSError, ValueError):
            return b""  # can't be decoded, so `problem_of` will ask `load` why

    def _requests(self, ids: np.ndarray | list[int]) -> list[_Request]:
        rows = self._rows[ids]
        turned = rows["orientation"] >= 5
        sides = (np.where(turned, rows[name], rows[other]).tolist()
                 for name, other in (("height", "width"), ("width", "height")))
        columns = (rows[name].tolist() for name in ("offset", "length", "crc"))
        return list(zip([self._paths[shard] for shard in rows["shard"].tolist()], *columns, *sides, strict=True))

    def _read(self, request: _Request) -> bytes:
        path, offset, length, crc, width, height = request
        data = self._files.read(path, offset, length)
        if len(data) != length:
            raise ValueError("its record is cut off")
        if zlib.crc32(data) != crc:
            raise ValueError("its record is not what was written: its CRC differs")
        size = stored_size(data)
        if size and size != (width, height):  # what decodes it would take memory that the index doesn't explain
            raise ValueError(f"its header says {size[0]:,} × {size[1]:,} pixels, the index {width:,} × {height:,}")
        return data

    def name_of(self, example: int) -> str:
        """The path of an example's shard, and the record's number."""
        shard = int(self._rows["shard"][example])
        return f"{shown(self._paths[shard])}, record {self._numbers[example]:,}"


def _problems(problems: Mapping[int, str], chosen: np.ndarray) -> dict[int, str]:
    """The problems of an index's rows, of those that are chosen, by their places there."""
    places = np.searchsorted(chosen, list(problems)).tolist()
    return {place: problem for place, (row, problem) in zip(places, problems.items(), strict=True)
            if place < len(chosen) and chosen[place] == row}


class _OpenFiles:
    """Reads from many files, of which it keeps the last used open.

    Args:
        most: How many to keep open.
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._open = functools.lru_cache(maxsize=most)(_File)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """A stretch of a file, in bytes."""
        file = self._file(path)  # held, so that no other thread closes it meanwhile
        return os.pread(file.descriptor, length, offset)

    def expect(self, requests: Iterable[_Request]) -> None:
        """Tells the system which reads come next, so that it can fetch all of them at once."""
        with contextlib.suppress(OSError, AttributeError):  # reads report errors; not every system takes advice
            for path, offset, length, *_ in requests:
                file = self._file(path)
                os.posix_fadvise(file.descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def _file(self, path: str) -> _File:
        with self._lock:
            return self._open(path)


class _File:
    """An open file, closed once no thread holds it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound: at the interpreter's end `os` is gone
        if hasattr(self, "descriptor"):
            close(self.descriptor)


def load(config: Config) -> Dataset:
    """Opens the records of `--data_dir`.

    Raises:
        DataError: if a shard is missing or not what it was, or more images can't be used than `--max_bad_records`.
    """
    return open_index(Path(config.data_dir or ".").expanduser(), config, "records")


def open_index(folder: Path, config: Config, name: str) -> Dataset:
    """Opens the records whose index lies in a folder.

    Args:
        folder: The folder of the index.
        config: The settings.
        name: The name of the data set.

    Raises:
        DataError: if a shard is missing or not what it was, or more images can't be used than `--max_bad_records`.
    """
    classes, splits, channels = index.read(folder)
    for split_name, split in splits.items():
        if not len(split.rows):
            raise DataError(f"the {split_name} split of {folder} is empty", "prepare it with at least one image")
    bad = BadExamples(config.max_bad_records)
    rows = np.concatenate([split.rows[["width", "height"]] for split in splits.values()])
    size = config.image_size or common_size(np.unique(rows).tolist())
    fraction = fraction_to_hold_back(
        config.validation_fraction, str(folder), **{each: f"{each} shards" if each in splits else None
                                                    for each in ("validation", "test")})
    chosen = {split_name: (split, np.arange(len(split.rows))) for split_name, split in splits.items()}
    if fraction:
        mask = _held_back(splits["train"], fraction)
        chosen |= {"train": (splits["train"], np.flatnonzero(~mask)),
                   "validation": (splits["train"], np.flatnonzero(mask))}
    view = View(size, size, channels, config.resize)
    opened = {split_name: RecordSplit(folder, *part, config.lanes, view, config.augment, bad)
              for split_name, part in chosen.items()}
    bad.check()
    parts = {shard["file"]: shard["sha256"] for split in splits.values() for shard in split.shards}
    return Dataset(name, classes, view[:3], opened["train"], opened.get("test"), parts, bad,
                   validation=opened.get("validation"), held_back=bool(fraction),
                   pixels_version=pixels_version([split.headers for split in opened.values()], view),
                   seen=seen_share(opened["train"].headers, view))


def _held_back(indexed: index.IndexedSplit, fraction: float) -> np.ndarray:
    """Which rows are held back, by the names of their shards and their numbers there: bool [n]."""
    shards = [os.path.basename(shard["file"]) for shard in indexed.shards]
    rows, numbers = indexed.rows["shard"].tolist(), indexed.numbers().tolist()
    names = [f"{shards[shard]}:{number}".encode() for shard, number in zip(rows, numbers, strict=True)]
    return held_back(indexed.rows["label"], names, fraction)
