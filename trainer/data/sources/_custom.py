"""A data set that a function of the user's makes: `--dataset=package.module:function`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainer.data.dataset import Dataset, in_memory
from trainer.errors import UsageError
from trainer.process.user_code import called_by_flag, function_of

if TYPE_CHECKING:
    from trainer.config import Config


def load(config: Config) -> Dataset:
    """Calls the function with the run's `Config`.

    The function returns (class names, (images, labels) to train on, (images, labels) to test on): images uint8 [n,
    height, width, channels], labels whole numbers [n] from 0. With four members the third is the validation split and
    the fourth the test split; with two there is a training split alone. Or it returns a `Dataset`, for images that
    don't fit into memory.

    Raises:
        UsageError: if the function cannot be imported, or returns something else.
    """
    with called_by_flag("dataset", config.dataset):
        returned = function_of("dataset", config.dataset, ("config",))(config)
    if isinstance(returned, Dataset):
        if config.validation_fraction:
            raise UsageError(f"--validation_fraction={config.validation_fraction:g} can't divide a Dataset that "
                             f"{config.dataset} returns", "let the function return a validation split")
        return returned
    try:
        classes, *by_split = returned
        names = {1: ("train",), 2: ("train", "test"), 3: ("train", "validation", "test")}[len(by_split)]
        splits = {split_name: (np.asarray(images), np.asarray(labels))
                  for split_name, (images, labels) in zip(names, by_split, strict=True)}
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong(config, f"it returned {type(returned).__name__} ({error})") from None
    shape = splits["train"][0].shape[1:]
    for images, labels in splits.values():
        if images.dtype != np.uint8 or images.ndim != 4 or not len(images) or images.shape[1:] != shape:
            raise _wrong(config, f"its images are {images.dtype} {list(images.shape)}")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise _wrong(config, f"it has {len(images):,} images and labels {labels.dtype} {list(labels.shape)}")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise _wrong(config, f"its labels go from {labels.min()} to {labels.max()}, and it names {len(classes)} "
                                 "classes")
    return in_memory(config.dataset, tuple(map(str, classes)), splits["train"], splits.get("test"),
                     validation=splits.get("validation"), validation_fraction=config.validation_fraction)


def _wrong(config: Config, what: str) -> UsageError:
    return UsageError(f"--dataset={config.dataset} must return (class names, (images, labels), (images, labels)), "
                      f"images uint8 [n, height, width, channels] and labels from 0; {what}",
                      "see docs/data.md for an example")
