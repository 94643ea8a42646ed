"""Arrays of images and labels as people have them, to uint8 images and labels from 0.

What can mean one thing only is taken, and said where numbers change; all else is refused, with the line that mends it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_DARK = 64  # images whose brightest value is below this look black
_CHANNELS = (1, 3, 4)


class WrongArraysError(ValueError):
    """Arrays that can't be used.

    Args:
        cause: What is wrong, after "it" or "its".
        fix: What the user can do about it.
    """

    def __init__(self, cause: str, fix: str = "see docs/data.md for an example") -> None:
        super().__init__(cause)
        self.fix = fix


def bytes_of(by_split: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The images of all splits, changed alike.

    Args:
        by_split: Name of the split to images: [n, height, width] or [n, height, width, channels], numbers of any type.

    Returns:
        (name to uint8 [n, height, width, channels], a sentence for everything that a user should know of it).

    Raises:
        WrongArraysError: if it isn't sure what they mean.
    """
    arrays = {name: _shaped(images) for name, images in by_split.items()}
    first = arrays["train"]
    for images in arrays.values():
        if images.shape[1:] != first.shape[1:] or images.dtype.kind != first.dtype.kind:
            raise WrongArraysError(f"its images are {images.dtype} {list(images.shape)} in one split, {first.dtype} "
                                   f"{list(first.shape)} in another", "treat the images of all splits alike")
    least = float(min(images.min() for images in arrays.values()))
    most = float(max(images.max() for images in arrays.values()))
    kind, told = first.dtype.kind, []
    if first.dtype == np.uint8:
        scaled = arrays
    elif kind == "b" or (kind == "f" and least >= 0 and most <= 1):
        scaled = {name: np.rint(images * np.float32(255)).astype(np.uint8) for name, images in arrays.items()}
        told = [f"the images are {'true or false' if kind == 'b' else 'fractions of 0 to 1'}: multiplied by 255"]
        most *= 255
    elif least >= 0 and most <= 255:
        scaled = {name: np.rint(images).astype(np.uint8) for name, images in arrays.items()}
    elif first.dtype == np.uint16:
        scaled, most = {name: (images >> 8).astype(np.uint8) for name, images in arrays.items()}, most // 256
        told = ["the images have 16 bits: the upper 8 are seen"]
    elif not math.isfinite(most - least):
        raise WrongArraysError("it has images whose numbers are not finite", "leave them out, or np.nan_to_num(images)")
    else:
        raise WrongArraysError(f"its images are {first.dtype} from {least:g} to {most:g}",
                               f"bring them to 0 to 255: (images {-least:+g}) * {255 / (most - least):.6g}")
    if most < _DARK:
        told.append(f"the images have values up to {most:.0f} of 255, so the model sees them as nearly black: multiply "
                    f"them by {255 / max(1.0, most):.3g} first")
    if first.shape[-1] == 4:
        told.append("the images have 4 channels, and the model sees all of them: if the fourth is opacity, put them on "
                    "white first")
    return scaled, told


def _shaped(value: Any) -> np.ndarray:
    """Images of any type of numbers, [n, height, width, channels]."""
    try:
        images = np.asarray(value)
    except ValueError:
        images = np.empty(0, object)
    if images.dtype == object:
        raise WrongArraysError("its images have different sizes", "resize them to one size, or train on the files: "
                               "--dataset=folder takes any")
    shape = tuple(map(int, images.shape))
    if images.dtype.kind not in "biuf" or len(shape) not in (2, 3, 4) or not images.size:
        raise WrongArraysError(f"its images are {images.dtype} {list(shape)}")
    if len(shape) == 2:
        sides = [(math.isqrt(shape[1] // channels), channels) for channels in (1, 3)]
        side, channels = next((pair for pair in sides if pair[0] ** 2 * pair[1] == shape[1]), ("HEIGHT, WIDTH", 1))
        sizes = f"{side}, {side}, {channels}" if isinstance(side, int) else f"{side}, {channels}"
        raise WrongArraysError(f"its images are rows of {shape[1]:,} numbers, {list(shape)}",
                               f"give them their shape: images.reshape(-1, {sizes})")
    if len(shape) == 3:
        return images[..., None]
    if shape[1] in _CHANNELS and shape[3] > (16 if shape[1] == 4 else max(_CHANNELS)):
        raise WrongArraysError(f"its images are {list(shape)}, with the channels first",
                               "put them last: np.transpose(images, (0, 2, 3, 1))")
    return images


def numbered(by_split: Mapping[str, Any], sizes: Mapping[str, int],
             classes: Sequence[str] | None) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The labels of all splits as numbers of classes.

    Args:
        by_split: Name of the split to labels: whole numbers (of any type), names, or one-hot rows; [n] or [n, 1].
        sizes: Name of the split to the number of its images.
        classes: The names of the classes, in the order of the labels; None if the labels say them.

    Returns:
        (name of the split to int64 [n], the names of the classes).

    Raises:
        WrongArraysError: if they are no labels, or not those of the classes.
    """
    flat = {name: _flat(labels, sizes[name]) for name, labels in by_split.items()}
    if len({labels.dtype.kind for labels, _ in flat.values()}) > 1:
        raise WrongArraysError("its labels are names in one split and numbers in another", "use the same in all splits")
    labels, columns = flat["train"]
    if classes is None and columns:
        classes = tuple(map(str, range(columns)))
    elif classes is None:
        values = np.unique(labels)
        classes = tuple(map(str, values.tolist()))
        return {name: _places(other, values) for name, (other, _) in flat.items()}, classes
    if labels.dtype.kind == "U":
        names = np.array(classes)
        order = np.argsort(names)
        return {name: order[_places(other, names[order])] for name, (other, _) in flat.items()}, tuple(classes)
    for other, _ in flat.values():
        if other.min() < 0 or other.max() >= len(classes):
            fix = ("subtract 1 from the labels" if (other.min(), other.max()) == (1, len(classes)) else
                   "label the images from 0 on, and name as many classes")
            raise WrongArraysError(f"its labels go from {other.min()} to {other.max()}, and it names {len(classes)} "
                                   "classes", fix)
    return {name: other for name, (other, _) in flat.items()}, tuple(classes)


def _flat(value: Any, count: int) -> tuple[np.ndarray, int]:
    """(labels int64 or str [n], columns of one-hot rows or 0)."""
    labels = np.asarray(value)
    if labels.dtype == object:
        labels = np.array(labels.tolist())  # of a table's column, such as pandas': names or numbers all the same
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    kind = labels.dtype.kind
    if len(labels.shape) not in (1, 2) or len(labels) != count or kind not in "biufUS":
        raise WrongArraysError(f"it has {count:,} images and labels {labels.dtype} {list(labels.shape)}",
                               "return a label for each image")
    if labels.ndim == 2:
        if kind in "US" or not (((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()):
            raise WrongArraysError(f"its labels {labels.dtype} {list(labels.shape)} are not one class for each image",
                                   "an image has one class: labels.argmax(1), if that is what you mean")
        return labels.argmax(1), labels.shape[1]
    if kind == "S":
        return np.char.decode(labels, "utf-8"), 0
    if kind == "U":
        return labels, 0
    if kind == "f" and not (labels == np.rint(labels)).all():  # NaN included
        raise WrongArraysError("its labels are not whole numbers", "labels are classes, not measurements")
    if labels.astype(np.int64).min() < 0:
        raise WrongArraysError(f"its labels go from {labels.min()} to {labels.max()}",
                               "leave images without a label out, and label the others from 0 on")
    return labels.astype(np.int64), 0


def _places(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where labels stand in an ordered array of all values that they may have: int64 [n]."""
    places = np.minimum(np.searchsorted(values, labels), len(values) - 1)
    unknown = np.unique(labels[values[places] != labels])
    if len(unknown):
        raise WrongArraysError(f"it has labels that are no class of the training split: "
                               f"{', '.join(map(str, unknown[:5]))}", "give all splits the same classes")
    return places
