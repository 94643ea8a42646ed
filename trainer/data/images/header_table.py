"""What the headers of many images say, column by column, and what follows from that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from trainer.data.images import crops, pillow_reader


@dataclasses.dataclass(frozen=True)
class HeaderTable:
    """What the headers of n images say, column by column.

    Args:
        kinds, widths, heights, orientations, traits: int [n], the fields of `pillow_reader.ImageHeader`.
        problems: Ids of images that can't be used to what is wrong with them, in a few words.
    """

    kinds: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    orientations: np.ndarray
    traits: np.ndarray
    problems: dict[int, str]

    @classmethod
    def join(cls, headers: Sequence[pillow_reader.ImageHeader]) -> HeaderTable:
        """The table of a list of headers."""
        columns = np.array([header[:5] for header in headers], np.int32).reshape(-1, 5).T
        small = columns.astype(np.uint8)
        return cls(small[0], columns[1], columns[2], small[3], small[4],
                   {row: header.problem for row, header in enumerate(headers) if header.problem})

    @property
    def usable(self) -> np.ndarray:
        """The images that are not known to be unusable: bool [n]."""
        mask = np.ones(len(self.kinds), bool)
        mask[list(self.problems)] = False
        return mask

    @property
    def is_grey(self) -> bool:
        """Whether one channel shows all that the images show."""
        usable = self.usable
        return bool(usable.any() and (self.traits[usable] & pillow_reader.GREY).all())


def pixels_version(tables: Iterable[HeaderTable], view: crops.View) -> int:
    """The first version of `pixels` (storage/bit_versions.py) in which a model sees the images as it does now.

    Args:
        tables: The table of each split.
        view: How the model sees the images.
    """
    if view.channels != 3 or not view.crops:
        return 2
    for table in tables:
        usable = table.usable
        shorter = np.minimum(table.heights, table.widths)[usable]
        if not len(shorter):
            continue
        # The first version halved JPEGs while decoding where most images of the split were large.
        halved = bool(np.median(shorter) >= 2 * view.height)
        large = (shorter >= 2 * view.height) & (table.kinds[usable] == pillow_reader.JPEG)
        if (table.traits[usable] & pillow_reader.SEEN_OTHERWISE).any() or (large.any() and not halved):
            return 2
    return 1


def seen_share(table: HeaderTable, view: crops.View) -> float:
    """The share of the area of images that evaluation sees, 0 to 1: the mean over the images."""
    heights, widths = (column[table.usable].astype(np.int64) for column in (table.heights, table.widths))
    if not len(heights):
        return 1.0
    boxes = crops.central_boxes(heights, widths, view).astype(np.int64)
    return float((boxes[:, 2] * boxes[:, 3] / (heights * widths)).mean())
