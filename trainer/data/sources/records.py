"""Images in TFRecord shards with an index (index.py), read lane by lane (lanes.py).

The shards are made by `python -m trainer prepare`, from class folders; or they are anybody's with the keys of
TensorFlow's ImageNet records or TensorFlow Datasets' shards, and `prepare` makes the index alone.
"""

import contextlib
import functools
import os
import threading
import zlib
from pathlib import Path

import numpy as np

from trainer.data.bad_examples import BadExamples
from trainer.data.dataset import Dataset
from trainer.data.images.class_folders import common_size, shown
from trainer.data.images.encoded_split import EncodedSplit, HeaderTable
from trainer.data.lanes import Lanes, lanes_of
from trainer.data.records import index
from trainer.errors import DataError
from trainer.process.tf_import import tf

_LARGE = 2**18  # bytes of a record
_OPEN = 256  # shards that are open at once, at most


class RecordSplit(EncodedSplit):
    """See the module.

    Args:
        folder: The index's.
        indexed: An `index.IndexedSplit`.
        lanes: How many lanes are wanted.
        size, augment, bad: As of `EncodedSplit`.
    """

    def __init__(self, folder, indexed, lanes, size, augment, bad):
        rows = indexed.rows
        self._paths = [os.path.join(folder, shard["file"]) for shard in indexed.shards]
        self._rows, self._lanes, self._files = rows, lanes, _OpenFiles(_OPEN)
        self._first = np.searchsorted(rows["shard"], np.arange(len(self._paths)))
        # Several steps are under way at once: small records are fetched by the step, which is faster, large ones
        # only when their turn to be decoded comes.
        self._one_by_one = rows["length"].mean() > _LARGE
        looks = HeaderTable(rows["kind"], rows["width"].astype(np.int32), rows["height"].astype(np.int32),
                      rows["orientation"], indexed.problems)
        super().__init__(rows["label"], looks, size, augment, bad)

    def order(self, seed, batch_size):
        """See `Split.order`: lane by lane."""
        return Lanes(seed, self.size, batch_size, lanes_of(self._lanes, batch_size))

    def fetch(self, ids):
        """See `EncodedSplit.fetch`: the encoded images, nothing for those that can't be read; or numbers."""
        places, fetched = self._places(ids), np.empty(len(ids), object)
        self._files.expect(places)
        fetched[:] = ([b"%d" % example for example in ids.tolist()] if self._one_by_one else
                      [self._read_or_nothing(*place) for place in places])
        return fetched

    def encoded(self, fetched):
        """See `EncodedSplit.encoded`."""
        if not self._one_by_one:
            return fetched
        return tf.ensure_shape(tf.numpy_function(self._fetch_one, [fetched], tf.string, stateful=False), [])

    def load(self, example):
        """See `EncodedSplit.load`."""
        return self._read(*self._places([example])[0])

    def _fetch_one(self, number):
        # One that was refused already has no number.
        return self._read_or_nothing(*self._places([int(number)])[0]) if number else b""

    def _read_or_nothing(self, *place):
        try:
            return self._read(*place)
        except (OSError, ValueError):
            return b""  # can't be decoded, so somebody will ask `load` why

    def _places(self, ids):
        """(path, offset, length, CRC) of examples."""
        rows = self._rows[ids]
        columns = (rows[name].tolist() for name in ("offset", "length", "crc"))
        return list(zip([self._paths[shard] for shard in rows["shard"].tolist()], *columns, strict=True))

    def _read(self, path, offset, length, crc):
        data = self._files.read(path, offset, length)
        if len(data) != length:
            raise ValueError("its record is cut off")
        if zlib.crc32(data) != crc:
            raise ValueError("its record is not what was written: its CRC differs")
        return data

    def name_of(self, example):
        """See `Split.name_of`."""
        shard = int(self._rows["shard"][example])
        return f"{shown(self._paths[shard])}, record {example - self._first[shard]:,}"


class _OpenFiles:
    """Reads from many files, keeping those open that were used last."""

    def __init__(self, most):
        self._lock = threading.Lock()
        self._open = functools.lru_cache(maxsize=most)(_File)

    def read(self, path, offset, length):
        """A stretch of a file."""
        file = self._file(path)  # held, so that nobody closes it meanwhile
        return os.pread(file.descriptor, length, offset)

    def expect(self, places):
        """Tells the system what comes next, so that it can fetch all of it at once: (path, offset, length, …) each."""
        with contextlib.suppress(OSError, AttributeError):  # whoever reads it will say; not every system takes advice
            for path, offset, length, *_ in places:
                file = self._file(path)
                os.posix_fadvise(file.descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def _file(self, path):
        with self._lock:
            return self._open(path)


class _File:
    def __init__(self, path):
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def load(config):
    """Opens the records of `--data_dir`.

    Args:
        config: The run's `Config`.

    Returns:
        A `Dataset`.

    Raises:
        DataError: if a shard is missing or not what it was, or more images can't be used than
            `--max_bad_records`.
    """
    return open_index(Path(config.data_dir or ".").expanduser(), config, "records")


def open_index(folder, config, name):
    """As `load`, of the records with an index in `folder`."""
    classes, splits = index.read(folder)
    for split_name, split in splits.items():
        if not len(split.rows):
            raise DataError(f"the {split_name} split of {folder} is empty", "prepare it with at least one image")
    bad = BadExamples(config.max_bad_records)
    rows = np.concatenate([split.rows[["width", "height"]] for split in splits.values()])
    size = config.image_size or common_size(np.unique(rows).tolist())
    made = {split_name: RecordSplit(folder, split, config.lanes, size, config.augment, bad)
            for split_name, split in splits.items()}
    bad.check()
    parts = {shard["file"]: shard["sha256"] for split in splits.values() for shard in split.shards}
    return Dataset(name, classes, (size, size, 3), made["train"], made["test"], parts, bad)
