"""Which examples are held back from the training split, so that they can choose: class by class, by their names.

In each class those examples are held back whose names have the smallest hashes. So the answer follows from the names
alone, and few examples change sides when others come or go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from trainer.errors import DataError, UsageError

DEFAULT_FRACTION = 0.1


def fraction_to_hold_back(asked_for: float | None, where: str, *, validation: str | None, test: str | None) -> float:
    """The fraction of the training split that becomes the validation split.

    Args:
        asked_for: `--validation_fraction`; None where it isn't given.
        where: The data's place, as a user reads it.
        validation, test: The name of the data's own split, such as "val/"; None where there is none.

    Returns:
        A fraction of 0 to 0.9: a tenth where there is a training split alone and none was asked for.

    Raises:
        UsageError: if a fraction was asked for, and there is a validation split.
        DataError: if nothing would be left to evaluate on.
    """
    if validation:
        if asked_for:
            raise UsageError(f"--validation_fraction={asked_for:g} holds training images back, but {where} has "
                             f"{validation} to validate on",
                             f"leave --validation_fraction out, or move {validation} away")
        return 0.0
    fraction = (0.0 if test else DEFAULT_FRACTION) if asked_for is None else asked_for
    if not fraction and not test:
        raise DataError(f"there is nothing to evaluate on in {where}, and --validation_fraction=0 holds nothing back",
                        "leave --validation_fraction out, or add images to validate or to test on")
    return fraction


def held_back(labels: np.ndarray, names: Sequence[bytes], fraction: float) -> np.ndarray:
    """Marks the examples that are held back.

    At least one of a class with two examples or more is held back, and at least one of every class is not.

    Args:
        labels: int [n].
        names: The name of each example, which must stay the same wherever the data lies.
        fraction: The fraction of each class, above 0.

    Returns:
        bool [n], True for the examples that are held back.

    Raises:
        DataError: if that is none.
    """
    hashes = np.array([hashlib.sha256(name).digest() for name in names], "S32")
    order = np.lexsort((hashes, labels))  # class by class, in each by the hash
    _, firsts, counts = np.unique(np.asarray(labels)[order], return_index=True, return_counts=True)
    wanted = np.minimum(np.maximum(np.round(fraction * counts), 1), counts - 1)
    ranks = np.arange(len(order)) - np.repeat(firsts, counts)
    mask = np.zeros(len(order), bool)
    mask[order] = ranks < np.repeat(wanted, counts)
    if not mask.any():
        raise DataError("every class has a single image, so none can be held back to evaluate on",
                        "add images to each class, or a validation split")
    return mask
