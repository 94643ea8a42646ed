"""What the names in a folder of class folders mean: splits and classes."""

import hashlib
import os
import unicodedata

from trainer.errors import DataError

TEST_NAMES = ("test", "val", "validation")
_FRACTION = 0.1
_USUAL = 224  # pixels a side


def divide(root, found, fraction, bad):
    """Which images belong to which split and class.

    Args:
        root: The data's folder.
        found: Its `Scan`.
        fraction: The share of the images that become the test split if no folder is; None for a tenth.
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
        raise DataError(f"--validation_fraction={fraction} holds images of train/ back, but {root} has {test}/",
                        f"leave --validation_fraction out, or move {test}/ away")
    roots = {"train": "train" if has_train else "", **({"test": test} if test else {})}
    by_split = {split_name: _by_class(found, inner, bad) for split_name, inner in roots.items()}
    if not any(by_split["train"].values()):
        raise DataError(f"no images in class folders under {root}{'/train' if has_train else ''}",
                        "lay them out as DATA_DIR/train/CLASS/image.jpg (JPEG, PNG, WebP, BMP or GIF)")
    for name in by_split["train"]:
        if shown(name) != name:
            raise DataError(f"the class folder {shown(name)} has a name that is not Unicode", "rename it")
        if not by_split["train"][name]:
            bad.note_file(shown(os.path.join(roots["train"], name)), "this class has no images")
    if not test:
        by_split = _hold_back(by_split["train"], _FRACTION if fraction is None else fraction)
    strange = sorted(by_split["test"].keys() - by_split["train"].keys())
    if strange:
        raise DataError(f"{root / (test or '')} has classes that train/ doesn't have: {', '.join(map(shown, strange))}",
                        "give both the same class folders")
    if not any(by_split["test"].values()):
        raise DataError(f"there is no image to test on under {root}",
                        "add test/CLASS/ folders, or hold more back with --validation_fraction")
    return by_split


def _by_class(found, inner, bad):
    """{class: names} of the folder `inner`."""
    prefix = f"{inner}/" if inner else ""
    classes = {}
    for folder in found.folders:
        if folder.startswith(prefix) and "/" not in folder[len(prefix):]:
            classes[_class_name(folder[len(prefix):])] = []
    for name in found.images:
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
    by_split = {"train": {}, "test": {}}
    for label, names in classes.items():
        mine = {name: _share(name) < fraction for name in names}
        by_split["train"][label] = [name for name in names if not mine[name]]
        by_split["test"][label] = [name for name in names if mine[name]]
    return by_split


def _share(name):
    """A number from 0 to 1 that follows from a name."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def common_size(sizes):
    """The side of the model's images where none was asked for.

    Args:
        sizes: (width, height) of the images, each once.

    Returns:
        Their own if all are squares of one size, of up to 224 pixels; 224 otherwise.
    """
    (width, height), *others = sizes or [(_USUAL, _USUAL)]
    return width if not others and width == height <= _USUAL else _USUAL


def shown(name):
    """A file's name as a terminal and a JSON file can take it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
