"""Images that differ from what a picture usually is: too dark, too bright, blurred, nearly empty, of an odd size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from trainer.data.audit.duplicates import LEAST_DEVIATION

# Of 255. In CIFAR-10 the 99th percentiles begin at 60 or so, and the 5th end near 230: one image in some thousands.
_DARK, _BRIGHT = 64, 230
# The Laplacian's deviation over that of the grey values, at up to 128 pixels of the longer side. Of 4,000 images of
# CIFAR-10 none is below 0.24; blurred by a Gaussian of 2 pixels, 95 % are below 0.2. Three photographs, 0.65 to 1, fall
# below it at a Gaussian of about 1 % of their longer side.
_BLURRED = 0.2
_SIDE_FACTOR, _ELONGATION_FACTOR = 3.0, 2.5


class Oddity(NamedTuple):
    """A kind of odd image.

    Args:
        kind: Its name, as JSON has it.
        words: What is wrong with them, as a user reads it after "N images".
        badness: Of the table [n] to float [n]: above 0 for the images that are of this kind, the larger the worse.
    """

    kind: str
    words: str
    badness: Callable[[np.ndarray], np.ndarray]


def _side(table: np.ndarray) -> np.ndarray:
    """The side of a square of as many pixels."""
    return np.sqrt(table["height"].astype(np.float64) * table["width"])


def _odd_size(table: np.ndarray) -> np.ndarray:
    side = _side(table)
    factor = side / np.median(side)
    return np.maximum(factor, 1 / factor) - _SIDE_FACTOR


def _odd_shape(table: np.ndarray) -> np.ndarray:
    height, width = table["height"].astype(np.float64), table["width"].astype(np.float64)
    elongation = np.maximum(height / width, width / height)
    return elongation / np.median(elongation) - _ELONGATION_FACTOR


def _dark(table: np.ndarray) -> np.ndarray:
    return np.where(_shows_something(table), _DARK - table["high"].astype(np.float64), 0)


def _bright(table: np.ndarray) -> np.ndarray:
    return np.where(_shows_something(table), table["low"].astype(np.float64) - _BRIGHT, 0)


def _blurred(table: np.ndarray) -> np.ndarray:
    return np.where(_shows_something(table), _BLURRED - table["sharpness"], 0)


def _one_colour(table: np.ndarray) -> np.ndarray:
    return (table["least"] == table["greatest"]).astype(float)


def _nearly_empty(table: np.ndarray) -> np.ndarray:
    return np.where(table["least"] < table["greatest"], LEAST_DEVIATION - table["deviation"], 0)


def _shows_something(table: np.ndarray) -> np.ndarray:
    return table["deviation"] >= LEAST_DEVIATION


ODDITIES = (
    Oddity("one_colour", "show nothing but one colour", _one_colour),
    Oddity("low_information", f"show nearly nothing: their grey values deviate by less than {LEAST_DEVIATION:g} of 255",
           _nearly_empty),
    Oddity("dark", f"are dark: 99 % of their pixels are below {_DARK} of 255", _dark),
    Oddity("bright", f"are bright: 95 % of their pixels are above {_BRIGHT} of 255", _bright),
    Oddity("blurry", "are blurred: they have hardly any edges (the Laplacian deviates by less than "
           f"{_BLURRED:g} of what the grey values do)", _blurred),
    Oddity("odd_size", f"have sides more than {_SIDE_FACTOR:g} times as long, or as short, as the median image's",
           _odd_size),
    Oddity("odd_aspect_ratio", f"are more than {_ELONGATION_FACTOR:g} times as elongated as the median image",
           _odd_shape))


def odd_images(table: np.ndarray) -> dict[str, np.ndarray]:
    """The images of each kind of oddity, the worst first: rows of the table, int64.

    Args:
        table: Of `traits.ROW` [n].
    """
    found = {}
    for oddity in ODDITIES if len(table) else ():
        badness = oddity.badness(table)
        rows = np.flatnonzero(badness > 0)
        found[oddity.kind] = rows[np.argsort(-badness[rows], kind="stable")]
    return found
