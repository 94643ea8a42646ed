"""A data set that a function of the user's makes: `--dataset=package.module:function`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.data.dataset import Dataset, in_memory
from trainer.data.images.layout import split_of
from trainer.data.sources._arrays import WrongArraysError, bytes_of, numbered
from trainer.errors import DataError, UsageError
from trainer.process.user_code import called_by_flag, function_of

if TYPE_CHECKING:
    from trainer.config import Config

# What people call the parts of a dict, the best first.
_IMAGES = ("images", "image", "x", "pixels", "data")
_LABELS = ("labels", "label", "y", "targets", "target")
_CLASSES = ("classes", "class_names", "label_names", "target_names", "names")
_SPLITS = {1: ("train",), 2: ("train", "test"), 3: ("train", "validation", "test")}
_Pair = tuple[Any, Any]


def load(config: Config) -> Dataset:
    """Calls the function with the run's `Config`, or without anything if it takes nothing that it needs.

    The function returns one of these; images and labels are as _arrays.py describes them:

    - (class names, (images, labels) to train on, (images, labels) to test on). With four members the third is the
      validation split and the fourth the test split; with two there is a training split alone. The class names may be
      missing.
    - images, labels of each split one after the other, or the images of two splits and then their labels.
    - A dict of splits, or with images and labels, such as x_train and y_train.
    - A `Dataset`, for images that don't fit into memory.

    Raises:
        DataError: if a function of Keras's can't get its data.
        UsageError: if the function cannot be imported, or returns something else.
    """
    function = function_of("dataset", config.dataset, ("config",), may_take_nothing=True)
    try:
        with called_by_flag("dataset", config.dataset):
            returned = function(config)
    except Exception as error:  # the network, the disk and archives each have their own
        if not config.dataset.startswith("keras."):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise DataError(reason if isinstance(error, UsageError) else f"--dataset={config.dataset} failed: {reason}",
                        "call it where there is a network, and copy ~/.keras/datasets here") from None
    if isinstance(returned, Dataset):
        if config.validation_fraction:
            raise UsageError(f"--validation_fraction={config.validation_fraction:g} can't divide a Dataset that "
                             f"{config.dataset} returns", "let the function return a validation split")
        return returned
    try:
        classes, pairs = _unpack(returned)
        if not pairs or "train" not in pairs:
            raise WrongArraysError(f"it returned {type(returned).__name__} without images to train on")
        images, told = bytes_of({name: pair[0] for name, pair in pairs.items()})
        sizes = {name: len(of_split) for name, of_split in images.items()}
        labels, names = numbered({name: pair[1] for name, pair in pairs.items()}, sizes, classes)
    except WrongArraysError as error:
        raise UsageError(f"--dataset={config.dataset} must return (class names, (images, labels), (images, labels)), "
                         f"images uint8 [n, height, width, channels] and labels from 0, or the like; {error}",
                         error.fix) from None
    splits = {name: (images[name], labels[name]) for name in images}
    data = in_memory(config.dataset, names, splits["train"], splits.get("test"),
                     validation=splits.get("validation"), validation_fraction=config.validation_fraction)
    return dataclasses.replace(data, warnings=tuple(told))


def _unpack(returned: Any) -> tuple[tuple[str, ...] | None, dict[str, _Pair]]:
    """(names of the classes or None, {"train": (images, labels)} and "validation" and "test" where there are any)."""
    if isinstance(returned, Mapping):
        return _of_mapping({str(key).casefold(): value for key, value in returned.items()})
    if not isinstance(returned, (tuple, list)):
        raise WrongArraysError(f"it returned {type(returned).__name__}")
    members, classes = list(returned), None
    if members and _is_names(members[0]):
        classes = tuple(map(str, members.pop(0)))
    if not any(map(_is_pair, members)):
        members = _in_pairs(members)
    if len(members) not in _SPLITS or not all(map(_is_pair, members)):
        what = ", ".join(type(member).__name__ for member in returned[:6])
        raise WrongArraysError(f"it returned {type(returned).__name__} of {len(returned)} ({what})")
    return classes, dict(zip(_SPLITS[len(members)], members, strict=True))


def _in_pairs(members: list[Any]) -> list[Any]:
    """(images, labels) of each split, of arrays that follow each other in one of two orders; else what is given."""
    half = len(members) // 2
    for least in (3, 2):  # dimensions of images; those of two are refused later, with their fix
        is_image = [_dimensions(member) >= least for member in members]
        if is_image == [True, False] * half:
            return list(zip(members[::2], members[1::2], strict=True))
        if is_image == [True] * half + [False] * half:  # the order of scikit-learn's train_test_split
            return list(zip(members[:half], members[half:], strict=True))
    return members


def _of_mapping(values: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, dict[str, _Pair]]:
    """As `_unpack`, of a dict with keys in small letters."""
    names = next((values[key] for key in _CLASSES if key in values), None)
    if names is not None and not _is_names(names):
        names = [str(name) for name in np.ravel(names).tolist()]
    parts: dict[str, dict[str, Any]] = {}
    pairs: dict[str, _Pair] = {}
    for key, value in values.items():
        words = re.split(r"[_\W]+", key)
        split_name = next(filter(None, map(split_of, words)), None)
        role = next((word for word in words if word in (*_IMAGES, *_LABELS)), None)
        if split_name and role:
            parts.setdefault(split_name, {})[role] = value
        elif split_name:
            pairs[split_name] = _pair_of(value, key)
    pairs |= {split_name: _pair_of(of_split, split_name) for split_name, of_split in parts.items()}
    return None if names is None else tuple(map(str, names)), pairs or {"train": _pair_of(values, "dict")}


def _pair_of(value: Any, name: str) -> _Pair:
    """(images, labels) of a split."""
    if isinstance(value, Mapping):
        lower = {str(key).casefold(): part for key, part in value.items()}
        images, labels = (next((lower[key] for key in keys if key in lower), None) for keys in (_IMAGES, _LABELS))
        if images is not None and labels is not None:
            return images, labels
        raise WrongArraysError(f"the keys of its {name} are {', '.join(map(str, value))}",
                               f"call them {_IMAGES[0]} and {_LABELS[0]}")
    if not _is_pair(value):
        raise WrongArraysError(f"its {name} is {type(value).__name__}, not (images, labels)")
    return value[0], value[1]


def _dimensions(value: Any) -> int:
    """The number of dimensions of an array, or of lists in lists, by their first members."""
    of_objects = getattr(value, "dtype", None) == np.dtype(object)
    if hasattr(value, "ndim") and not of_objects:
        return value.ndim
    is_nested = isinstance(value, (list, tuple)) or of_objects
    return 1 + (_dimensions(value[0]) if len(value) else 0) if is_nested else 0


def _is_pair(value: Any) -> bool:
    """Whether a value is (images, labels), be the images right or not."""
    return (isinstance(value, (tuple, list)) and len(value) == 2 and _dimensions(value[0]) >= 2
            and 1 <= _dimensions(value[1]) <= 2)


def _is_names(value: Any) -> bool:
    """Whether a value is a list of names."""
    return _dimensions(value) == 1 and len(value) > 0 and all(isinstance(name, (str, bytes)) for name in value)
