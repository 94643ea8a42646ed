"""Images in class folders.

    DATA_DIR/train/CLASS/*.jpg      DATA_DIR/test/CLASS/*.jpg      or val/, validation/
    DATA_DIR/CLASS/*.jpg            likewise, where there is no train/

Without a folder for the test split, `--validation_fraction` of the images are it: chosen by a hash of
their names, so that an image stays where it is whatever else comes or goes.

Every header is read at the start (and remembered in the model_dir, so that the next start needn't): what is
wrong is known before the first step, and an image is never decoded that would need too much memory.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from trainer.data.bad_examples import BadExamples
from trainer.data.dataset import Dataset
from trainer.data.images.class_folders import common_size, divide, shown
from trainer.data.images.encoded_split import EncodedSplit, HeaderTable
from trainer.data.images.folder_scan import scan
from trainer.process.tf_import import tf


class FolderSplit(EncodedSplit):
    """See the module.

    Args:
        root: The data's folder.
        names: Of the image files, relative to it.
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
    """Finds the images of `--data_dir`.

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
    by_split = divide(root, found, config.validation_fraction, bad)
    classes = sorted(by_split["train"])
    used = [found.images[name].look
            for by_class in by_split.values() for names in by_class.values() for name in names]
    size = config.image_size or common_size({(look.width, look.height) for look in used if not look.problem})
    splits, parts = {}, {}
    for split_name, by_class in by_split.items():
        names = [name for label in classes for name in by_class.get(label, ())]
        labels = np.repeat(np.arange(len(classes)), [len(by_class.get(label, ())) for label in classes])
        looks = HeaderTable.join([found.images[name].look for name in names])
        splits[split_name] = FolderSplit(root, names, labels, looks, size, config.augment, bad)
        parts |= {f"{split_name}/{label}": _digest(inner, found) for label, inner in by_class.items()}
    bad.check()
    return Dataset("folder", tuple(classes), (size, size, 3), splits["train"], splits["test"], parts, bad)


def _digest(names, found):
    """The SHA-256 of names and sizes. Not of the content: that would mean to read all of it at every start."""
    lines = b"".join(b"%s\0%d\n" % (os.fsencode(name), found.images[name].size) for name in names)
    return hashlib.sha256(lines).hexdigest()
