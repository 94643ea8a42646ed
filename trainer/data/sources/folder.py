"""Images in class folders.

    DATA_DIR/train/CLASS/*.jpg      DATA_DIR/val/CLASS/*.jpg      DATA_DIR/test/CLASS/*.jpg
    DATA_DIR/CLASS/*.jpg            where there is no train/

val/ or test/ or both may be missing, and all may have their other usual names (layout.py). With a training split alone
`--validation_fraction` of each class is held back to validate on, by a hash of the names (held_back.py).

Every header is read at the start (and remembered in the model_dir, so that the next start needn't): what is
wrong is known before the first step, and an image is never decoded that would need too much memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.bad_examples import BadExamples
from trainer.data.dataset import Dataset
from trainer.data.images.class_folders import Division, common_size, divide
from trainer.data.images.crops import View
from trainer.data.images.encoded_split import EncodedSplit
from trainer.data.images.folder_scan import Scan, scan
from trainer.data.images.header_table import HeaderTable, pixels_version, seen_share
from trainer.data.images.layout import shown, split_of
from trainer.data.images.pillow_reader import GREY
from trainer.errors import UsageError
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.config import Config


class FolderSplit(EncodedSplit):
    """A split whose images are files in class folders.

    Args:
        root: The data's folder.
        names: Names of the image files, relative to the folder.
        labels, headers, view, augment, bad: As in `EncodedSplit`.
    """

    def __init__(self, root: Path | str, names: Sequence[str], labels: np.ndarray, headers: HeaderTable, view: View,
                 augment: Sequence[str], bad: BadExamples) -> None:
        self._root, self._names = os.fsencode(root), np.array([os.fsencode(name) for name in names], object)
        super().__init__(labels, headers, view, augment, bad)

    def fetch(self, ids: np.ndarray) -> np.ndarray:
        """The paths of examples: an array of bytes objects [n]."""
        return np.array([os.path.join(self._root, name) for name in self._names[ids].tolist()], object)

    def encoded(self, fetched: tf.Tensor) -> tf.Tensor:
        """The content of the file whose path `fetch` gave."""
        return tf.io.read_file(fetched)

    def load(self, example: int) -> bytes:
        """The encoded image, as `EncodedSplit.load` describes it."""
        name: bytes = self._names.item(example)
        return Path(os.fsdecode(os.path.join(self._root, name))).read_bytes()

    def name_of(self, example: int) -> str:
        """The path of an example's file, relative to the data's folder."""
        return shown(os.fsdecode(self._names.item(example)))


def load(config: Config) -> Dataset:
    """Finds the images of `--data_dir`.

    Raises:
        DataError: if there are none, or more that can't be used than `--max_bad_records`.
    """
    root = Path(config.data_dir or ".").expanduser()
    bad = BadExamples(config.max_bad_records)
    scanned = scan(root, config.model_dir)
    if os.path.realpath(root) == os.path.realpath(config.model_dir) and "train" not in map(split_of, scanned.folders):
        raise UsageError(f"--model_dir is the folder of the images, {root}: what a run writes would be classes there",
                         f"use another --model_dir, such as {root / 'runs' / 'mine'}: what runs write there is no data")
    division = divide(root, scanned, config.validation_fraction, bad)
    return open_images("folder", config, root, scanned, division, bad)


def open_images(name: str, config: Config, root: Path, scanned: Scan, division: Division, bad: BadExamples) -> Dataset:
    """Opens images in files.

    Args:
        name: The name of the data set.
        config: The settings.
        root: The folder that the images' names are relative to.
        scanned: The images.
        division: Their splits and classes.
        bad: The images and files that can't be used.

    Raises:
        DataError: if more can't be used than `--max_bad_records`.
    """
    by_split, classes = division.by_split, division.classes
    used = [scanned.images[name].header
            for by_class in by_split.values() for names in by_class.values() for name in names]
    sound = [header for header in used if not header.problem]
    size = config.image_size or common_size({(header.width, header.height) for header in sound})
    view = View(size, size, 1 if sound and all(header.traits & GREY for header in sound) else 3, config.resize)
    splits: dict[str, FolderSplit] = {}
    tables: dict[str, HeaderTable] = {}
    for split_name, by_class in by_split.items():
        names = [name for label in classes for name in by_class.get(label, ())]
        labels = np.repeat(np.arange(len(classes)), [len(by_class.get(label, ())) for label in classes])
        tables[split_name] = HeaderTable.join([scanned.images[name].header for name in names])
        splits[split_name] = FolderSplit(root, names, labels, tables[split_name], view, config.augment, bad)
    bad.check()
    return Dataset(name, classes, view[:3], splits["train"], splits.get("test"),
                   _parts(division, scanned), bad, validation=splits.get("validation"),
                   held_back=division.held_back, warnings=tuple(division.warnings),
                   pixels_version=pixels_version(tables.values(), view), seen=seen_share(tables["train"], view))


def _parts(division: Division, scanned: Scan) -> dict[str, str]:
    """The parts of the `Dataset`, of the images as the folders have them."""
    by_folder = division.by_folder
    # The only other split was called test, whatever its folder's name, when the first runs began.
    only = "test" if len(by_folder) == 2 else None
    return {f"{split_name if split_name == 'train' else only or split_name}/{label}": _digest(names, scanned)
            for split_name, by_class in by_folder.items() for label, names in by_class.items()}


def _digest(names: Sequence[str], scanned: Scan) -> str:
    """The SHA-256 of names and sizes. Not of the content: that would mean to read all of it at every start."""
    lines = b"".join(b"%s\0%d\n" % (os.fsencode(name), scanned.images[name].size) for name in names)
    return hashlib.sha256(lines).hexdigest()
