"""Goes over all images of a data set once, and keeps a few numbers of each."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.data.audit.traits import ROW, traits_of
from trainer.data.images.encoded_split import EncodedSplit
from trainer.process.host import cores
from trainer.process.progress_bar import bar

if TYPE_CHECKING:
    from trainer.data.dataset import Dataset
    from trainer.data.split import Split

_AT_ONCE = 1024  # images that wait for a thread: their number, not the data's, is what memory holds


class Scanned(NamedTuple):
    """The images that were read.

    Args:
        table: A row for each, of `traits.ROW` [n].
        splits: The place of its split in the data's `splits`: int8 [n].
        ids: Its id in the split: int64 [n].
    """

    table: np.ndarray
    splits: np.ndarray
    ids: np.ndarray


def scan(data: Dataset, images: int = 0) -> Scanned:
    """Reads and decodes all images of a data set; notes in `data.bad` those that can't be used.

    Args:
        data: The data set.
        images: How many to read, evenly spread over the data; 0 for all.
    """
    sizes = [split.size for split in data.splits.values()]
    chosen = np.arange(sum(sizes))
    if 0 < images < len(chosen):
        chosen = np.linspace(0, len(chosen) - 1, images).round().astype(np.int64)
    places = np.searchsorted(np.cumsum(sizes), chosen, side="right")
    ids = chosen - (np.cumsum(sizes) - sizes)[places]
    table, read = np.zeros(len(chosen), ROW), np.zeros(len(chosen), bool)
    splits = list(data.splits.values())
    with ThreadPoolExecutor(cores()) as threads, bar("images", len(chosen)) as advance:
        for begin in range(0, len(chosen), _AT_ONCE):
            rows = range(begin, min(begin + _AT_ONCE, len(chosen)))
            looks = threads.map(functools.partial(_look, data), [splits[places[row]] for row in rows],
                                ids[rows.start:rows.stop].tolist())
            for row, traits in zip(rows, looks, strict=True):
                if traits:
                    table[row], read[row] = traits, True
            advance(len(rows))
    return Scanned(table[read], places[read].astype(np.int8), ids[read])


def _look(data: Dataset, split: Split, example: int) -> tuple[Any, ...] | None:
    """The traits of an example; None if it can't be used, which is noted."""
    problem, pixels = split.inspect(example)
    if problem and isinstance(split, EncodedSplit):
        data.bad.note(split, example, problem)
    return None if pixels is None else traits_of(pixels)
