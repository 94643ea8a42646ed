"""Labelled images from any source, as a given model sees them: whole splits, of which nothing is held back.

Unlike a data set to train on, one to measure on may have a single split, and any of the model's classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainer.data import dataset
from trainer.data.array_split import ArraySplit
from trainer.data.bad_examples import BadExamples
from trainer.data.images.class_folders import class_members
from trainer.data.images.crops import View
from trainer.data.images.folder_scan import scan
from trainer.data.images.header_table import HeaderTable
from trainer.data.images.layout import holding_folders, shown, split_folders, unused
from trainer.data.records import index
from trainer.data.sources import _tfds
from trainer.data.sources.folder import FolderSplit
from trainer.data.sources.records import RecordSplit
from trainer.errors import DataError, UsageError

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.data.split import Split

WHOLE = "all"  # the name of a split whose source gives it no name


class Labelled(NamedTuple):
    """Labelled images.

    Args:
        classes: Names of the classes, in the order of the labels.
        splits: The splits by name: "train", "validation" and "test", those that there are, or `WHOLE`.
        bad: The images and files that can't be used.
        warnings: A sentence for everything about the data that a user should know.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    bad: BadExamples
    warnings: tuple[str, ...] = ()


def load(config: Config, image_shape: tuple[int, int, int]) -> Labelled:
    """Reads the labelled images that a configuration names.

    Args:
        config: `dataset` and `data_dir` name them; `resize` and `max_bad_records` are used, too.
        image_shape: (height, width, channels) of the model's images.

    Raises:
        DataError: if they are missing or damaged, or more can't be used than `--max_bad_records`.
        UsageError: if they can't be the model's images.
    """
    config = dataclasses.replace(config, validation_fraction=None, augment=())
    read = {"folder": _from_folder, "records": _from_records}.get(config.dataset)
    read = _from_records if config.dataset.startswith("tfds:") else read or _from_source
    return read(config, image_shape)


def _from_source(config: Config, image_shape: tuple[int, int, int]) -> Labelled:
    data = dataset.read(config)
    if data.image_shape != image_shape:
        ours, theirs = (" × ".join(map(str, shape)) for shape in (image_shape, data.image_shape))
        raise UsageError(f"the model sees images of {ours}, and those of --dataset={config.dataset} have {theirs}",
                         "save them as files in class folders (--dataset=folder), which are resized")
    splits = data.splits
    train, validation = data.train, data.validation
    if data.held_back and isinstance(train, ArraySplit) and isinstance(validation, ArraySplit):
        whole = ArraySplit(np.concatenate([train.images, validation.images]),
                           np.concatenate([train.labels, validation.labels]))
        splits = {**{name: split for name, split in splits.items() if name != "validation"}, "train": whole}
    return Labelled(data.classes, splits, data.bad, data.warnings)


def _from_records(config: Config, image_shape: tuple[int, int, int]) -> Labelled:
    folder = Path(config.data_dir or ".").expanduser()
    if config.dataset != "records":
        folder = _tfds.index_folder(config)
    view, bad = _view(config, image_shape), BadExamples(config.max_bad_records)
    classes, indexed, channels = index.read(folder)
    splits = {name: RecordSplit(folder, split, np.arange(len(split.rows)), config.lanes, view, (), bad, channels == 1)
              for name, split in indexed.items() if len(split.rows)}
    bad.check()
    return Labelled(classes, splits, bad)


def _from_folder(config: Config, image_shape: tuple[int, int, int]) -> Labelled:
    """Splits with the usual names; without any, the class folders as a whole."""
    root = Path(config.data_dir or ".").expanduser()
    view, bad, scanned = _view(config, image_shape), BadExamples(config.max_bad_records), scan(root)
    holding = holding_folders(scanned.images)
    folders = split_folders(root, holding) or {WHOLE: ""}
    members = {name: class_members(scanned, inner, bad) for name, inner in folders.items()}
    classes = sorted({label for by_class in members.values() for label, names in by_class.items() if names})
    if not classes:
        raise DataError(f"no images in class folders under {root}", "lay them out as DATA_DIR/CLASS/image.jpg")
    splits = {}
    for split_name, by_class in members.items():
        names = [name for label in classes for name in by_class.get(label, ())]
        labels = np.repeat(np.arange(len(classes)), [len(by_class.get(label, ())) for label in classes])
        headers = HeaderTable.join([scanned.images[name].header for name in names])
        splits[split_name] = FolderSplit(root, names, labels, headers, view, (), bad)
    bad.check()
    return Labelled(tuple(map(shown, classes)), splits, bad, tuple(unused(root, folders, holding, scanned.images)))


def _view(config: Config, image_shape: tuple[int, int, int]) -> View:
    height, width, channels = image_shape
    if channels not in (1, 3):
        raise UsageError(f"image files have 1 or 3 channels; the model of {config.model_dir} takes {channels}",
                         "use a function that returns arrays: --dataset=package.module:function")
    return View(height, width, channels, config.resize)
