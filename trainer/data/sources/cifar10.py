"""CIFAR-10 (Krizhevsky 2009), from its binary or its Python files.

Both hold images as 3,072 bytes, channel by channel: 1,024 of red, of green, of blue. The binary
files are rows of a label byte and an image; the Python files are pickles of NumPy arrays, which
pickled_arrays.py reads without running anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.data import pickled_arrays
from trainer.data.dataset import Dataset, digest, in_memory
from trainer.errors import DataError, raise_if_transient
from trainer.process.exit import tell
from trainer.process.imports import keras_home

if TYPE_CHECKING:
    from trainer.config import Config

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
_IMAGE = 3 * 32 * 32
# Where Keras's own loader keeps the published archive, unpacked, and what it expects of it.
_KERAS_FOLDER = "cifar-10-batches-py-target"
_ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

_Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 [n, 3072], labels of whole numbers [n]


def load(config: Config) -> Dataset:
    """Reads CIFAR-10 from `--data_dir`, or else through Keras's downloader.

    Raises:
        DataError: naming the file that is missing or damaged, or the files to put into which folder.
    """
    root = Path(config.data_dir).expanduser() if config.data_dir else keras_home() / "datasets"
    layout = _find(root) or _find(_download(root))
    if not layout:
        raise DataError(f"the archive that was downloaded holds no CIFAR-10 under {root}",
                        "unpack cifar-10-python.tar.gz yourself and set --data_dir to its folder")
    folder, ending, read = layout
    splits, hashes = {}, {}
    for names in (TRAIN, TEST):
        paths = [folder / f"{name}{ending}" for name in names]
        parts = [read(path) for path in paths]
        _same_sizes(paths, [len(labels) for _, labels in parts])
        hashes |= {name: digest(*part) for name, part in zip(names, parts, strict=True)}
        images, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        splits[names] = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
    return in_memory("cifar10", CLASSES, splits[TRAIN], splits[TEST], hashes,
                     validation_fraction=config.validation_fraction)


def _find(root: Path) -> tuple[Path, str, Callable[[Path], _Arrays]] | None:
    """(folder, ending of its files, function that reads one), or None if no known layout lies under `root`."""
    layouts = [(inner, ".bin", _read_binary) for inner in ("cifar-10-batches-bin", "")]
    layouts += [(inner, "", _read_python)
                for inner in ("cifar-10-batches-py", f"{_KERAS_FOLDER}/cifar-10-batches-py", "")]
    for inner, ending, read in layouts:
        # Any of the files: one that is missing is then named, not taken for a data set that isn't there.
        if any(os.path.exists(root / inner / f"{name}{ending}") for name in (*TRAIN, *TEST)):
            return root / inner, ending, read
    return None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise_if_transient(error, path)
        raise DataError(f"cannot read {path}: {error.strerror}",
                        "put the file there, or unpack CIFAR-10 again") from None


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} is damaged: {what}", "unpack CIFAR-10 again, or use another --data_dir")


def _read_binary(path: Path) -> _Arrays:
    """(images uint8 [n, 3072], labels uint8 [n]) of a binary file."""
    data, row = _bytes_of(path), 1 + _IMAGE
    if not data or len(data) % row:
        raise _damaged(path, f"{len(data):,} bytes are not a whole number of records of {row:,} bytes; "
                             f"record {len(data) // row} is cut off")
    rows = np.frombuffer(data, np.uint8).reshape(-1, row)
    return rows[:, 1:], _checked_labels(path, rows[:, 0])


def _read_python(path: Path) -> _Arrays:
    """(images uint8 [n, 3072], labels [n]) of a Python file."""
    try:
        batch = pickled_arrays.read(path)
    except OSError as error:
        raise_if_transient(error, path)
        raise DataError(f"cannot read {path}: {error.strerror}",
                        "put the file there, or unpack CIFAR-10 again") from None
    except pickled_arrays.RefusedError as error:
        raise DataError(f"{path}: {error}, which a data file has no use for; it was not run",
                        "don't trust this file; get CIFAR-10 from a source that you know") from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    images, labels = batch.get("data"), batch.get("labels")
    if isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels):
        labels = np.array(labels)
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
        raise _damaged(path, "it holds no 'data' and 'labels'")
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != _IMAGE or not len(images):
        raise _damaged(path, f"its data is {images.dtype} {list(images.shape)}, not uint8 [n, {_IMAGE}]")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise _damaged(path, f"it holds {len(images):,} images and labels of shape {list(labels.shape)}")
    return images, _checked_labels(path, labels)


def _same_sizes(paths: Sequence[Path], sizes: Sequence[int]) -> None:
    """Makes sure that all files have the same number of records: only so a file that ends between two is found."""
    whole = max(sizes)
    for path, size in zip(paths, sizes, strict=True):
        if size < whole:
            other = paths[sizes.index(whole)].name
            raise _damaged(path, f"it holds {size:,} records, {other} {whole:,}; record {size} and all after it are "
                                 "missing")


def _checked_labels(path: Path, labels: np.ndarray) -> np.ndarray:
    """The labels, if all are those of classes.

    Raises:
        DataError: if one is not.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(wrong):
        raise _damaged(path, f"the label of record {wrong[0]} is {labels[wrong[0]]}, not 0 to {len(CLASSES) - 1}")
    return labels


def _download(root: Path) -> Path:
    """Fetches the published archive into Keras's cache; returns the folder that holds its files."""
    import keras

    tell(f"lockstep: there is no CIFAR-10 in {root}; asking Keras for it, which downloads 170 MB if it has none")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras's progress; what programs read goes to stdout
            return Path(keras.utils.get_file(fname=_KERAS_FOLDER, origin=_ORIGIN, extract=True, file_hash=_SHA256))
    except Exception as error:  # urllib, ssl, sockets, tarfile and Keras each have their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"no CIFAR-10 under {root} (neither cifar-10-batches-bin/ nor cifar-10-batches-py/), and the download "
            f"failed: {reason[:200]}",
            "unpack cifar-10-binary.tar.gz or cifar-10-python.tar.gz there, or set "
            "--data_dir to its folder; or train without any download: --dataset=shapes") from None
    finally:
        socket.setdefaulttimeout(timeout)
