"""Pictures in class folders.

    DATA_DIR/train/CLASS/*.jpg      DATA_DIR/test/CLASS/*.jpg      or val/, validation/
    DATA_DIR/CLASS/*.jpg            likewise, where there is no train/

Without a folder for the test split, `--validation_fraction` of the pictures are it: chosen by a hash of
their names, so that a picture stays where it is whatever else comes or goes.

Every header is read at the start (and remembered in the model_dir, so that the next start needn't): what is
wrong is known before the first step, and a picture is never decoded that would need too much memory.
"""

import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.data.bad_examples import BadExamples
from trainer.data.dataset import Dataset
from trainer.data.images.encoded_split import EncodedSplit, Looks
from trainer.data.images.folder_scan import scan
from trainer.errors import DataError

TEST_NAMES = ("test", "val", "validation")
_FRACTION = 0.1
_USUAL = 224  # pixels a side


class FolderSplit(EncodedSplit):
    """See the module.

    Args:
        root: The data's folder.
        names: Of the picture files, relative to it.
        *rest: As of `EncodedSplit`.
    """

    def __init__(self, root, names, *rest):
        self._root, self._names = os.fsencode(root), np.array([os.fsencode(name) for name in names], object)
        super().__init__(*rest)

    def fetch(self, ids):
        """See `EncodedSplit.fetch`: paths."""
        return np.array([os.path.join(self._root, name) for name in self._names[ids]], object)

    def encoded(self, fetched):
        """See `EncodedSplit.encoded`."""
        return tf.io.read_file(fetched)

    def load(self, example):
        """See `EncodedSplit.load`."""
        return Path(os.fsdecode(os.path.join(self._root, self._names[example]))).read_bytes()

    def name_of(self, example):
        """See `Split.name_of`."""
        return shown(os.fsdecode(self._names[example]))


def load(config):
    """Finds the pictures of `--data_dir`.

    Args:
        config: The run's `Config`.

    Returns:
        A `Dataset`.

    Raises:
        DataError: if there are none, or more that can't be used than `--max_bad_records`.
    """
    root = Path(config.data_dir or ".").expanduser()
    bad = BadExamples(config.max_bad_records)
    found = scan(root, config.model_dir)
    halves = divide(root, found, config.validation_fraction, bad)
    classes = sorted(halves["train"])
    used = [found.pictures[name].look for by_class in halves.values() for names in by_class.values() for name in names]
    size = config.image_size or common_size({(look.width, look.height) for look in used if not look.problem})
    splits, parts = {}, {}
    for half, by_class in halves.items():
        names = [name for label in classes for name in by_class.get(label, ())]
        labels = np.repeat(np.arange(len(classes)), [len(by_class.get(label, ())) for label in classes])
        looks = Looks.join([found.pictures[name].look for name in names])
        splits[half] = FolderSplit(root, names, labels, looks, size, config.augment, bad)
        parts |= {f"{half}/{label}": _digest(inner, found) for label, inner in by_class.items()}
    bad.check()
    return Dataset("folder", tuple(classes), (size, size, 3), splits["train"], splits["test"], parts, bad)


def divide(root, found, fraction, bad):
    """Which pictures belong to which split and class.

    Args:
        root: The data's folder.
        found: Its `Scan`.
        fraction: The share of the pictures that become the test split if no folder is; None for a tenth.
        bad: Is told of everything that doesn't belong.

    Returns:
        {"train": {class: names}, "test": {class: names}}, names in order.

    Raises:
        DataError: if there is nothing to train or to test on.
    """
    top = {name for name in found.folders if "/" not in name}
    has_train = "train" in top
    test = next((name for name in TEST_NAMES if has_train and name in top), None)
    if test and fraction is not None:
        raise DataError(f"--validation_fraction={fraction} holds pictures of train/ back, but {root} has {test}/",
                        f"leave --validation_fraction out, or move {test}/ away")
    roots = {"train": "train" if has_train else "", **({"test": test} if test else {})}
    halves = {half: _by_class(found, inner, bad) for half, inner in roots.items()}
    if not any(halves["train"].values()):
        raise DataError(f"no pictures in class folders under {root}{'/train' if has_train else ''}",
                        "lay them out as DATA_DIR/train/CLASS/picture.jpg (JPEG, PNG, WebP, BMP or GIF)")
    for name in halves["train"]:
        if shown(name) != name:
            raise DataError(f"the class folder {shown(name)} has a name that is not Unicode", "rename it")
        if not halves["train"][name]:
            bad.note_file(shown(os.path.join(roots["train"], name)), "this class has no pictures")
    if not test:
        halves = _hold_back(halves["train"], _FRACTION if fraction is None else fraction)
    strange = sorted(halves["test"].keys() - halves["train"].keys())
    if strange:
        raise DataError(f"{root / (test or '')} has classes that train/ doesn't have: {', '.join(map(shown, strange))}",
                        "give both the same class folders")
    if not any(halves["test"].values()):
        raise DataError(f"there is no image to test on under {root}",
                        "add test/CLASS/ folders, or hold more back with --validation_fraction")
    return halves


def _by_class(found, inner, bad):
    """{class: names} of the folder `inner`."""
    prefix = f"{inner}/" if inner else ""
    classes = {}
    for folder in found.folders:
        if folder.startswith(prefix) and "/" not in folder[len(prefix):]:
            classes[_class_name(folder[len(prefix):])] = []
    for name in found.pictures:
        if name.startswith(prefix):
            label, slash, _ = name[len(prefix):].partition("/")
            if slash:
                classes[_class_name(label)].append(name)
            else:
                bad.note_file(shown(name), "it is in no class folder")
    for name, problem in found.others.items():
        if name.startswith(prefix) and "/" in name[len(prefix):]:
            bad.note_file(shown(name), problem)
    return classes


def _class_name(folder):
    """A class's name: Unicode's composed form, because file systems differ in that."""
    return unicodedata.normalize("NFC", folder)


def _hold_back(classes, fraction):
    halves = {"train": {}, "test": {}}
    for label, names in classes.items():
        mine = {name: _share(name) < fraction for name in names}
        halves["train"][label] = [name for name in names if not mine[name]]
        halves["test"][label] = [name for name in names if mine[name]]
    return halves


def _share(name):
    """A number from 0 to 1 that follows from a name."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def common_size(sizes):
    """The side of the model's pictures where none was asked for.

    Args:
        sizes: (width, height) of the pictures, each once.

    Returns:
        Their own if all are squares of one size, of up to 224 pixels; 224 otherwise.
    """
    (width, height), *others = sizes or [(_USUAL, _USUAL)]
    return width if not others and width == height <= _USUAL else _USUAL


def _digest(names, found):
    """The SHA-256 of names and sizes. Not of the content: that would mean to read all of it at every start."""
    lines = b"".join(b"%s\0%d\n" % (os.fsencode(name), found.pictures[name].size) for name in names)
    return hashlib.sha256(lines).hexdigest()


def shown(name):
    """A file's name as a terminal and a JSON file can take it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
