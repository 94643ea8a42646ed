"""Images that a data set holds twice: with the same pixels, or with nearly the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from trainer.data.audit.traits import CODE_BITS

# Differing bits of two codes, and of two codes one of which may be of the shifted image, in pairs that are taken for
# near duplicates. Between CIFAR-10's training and test images 293 test images have such a pair; Barz & Denzler 2020
# (arXiv:1902.00423), who looked at all pairs that a network finds close, name 286. By eye some 19 of 20 pairs are of
# the same shot or hardly to be told apart (BUILD_NOTES.md).
_FIRST, NEAR = 40, 25
# Images whose grey values deviate less have codes made of noise.
LEAST_DEVIATION = 5.0
_MOST_COMPARISONS = 10**11  # a quarter of an hour on two cores
_MOST_PAIRS = 10**6
_ROWS, _COLUMNS, _PAIRS = 2048, 4096, 2**16  # at once


class Group(NamedTuple):
    """Images that are the same, or nearly.

    Args:
        rows: Their rows of the table, ascending: int64 [2 or more].
        distance: The most bits in which the codes of two that were taken together differ; None for the same pixels.
    """

    rows: np.ndarray
    distance: int | None


class Near(NamedTuple):
    """Images that are nearly the same.

    Args:
        groups: The groups, the most alike first.
        left_out: (split, split) whose images were not compared: too many, or too many alike.
    """

    groups: list[Group]
    left_out: list[tuple[int, int]]


def same_pixels(table: np.ndarray) -> list[Group]:
    """Groups of images with the same shape and the same pixels, but for those of a single colour.

    Args:
        table: Of `traits.ROW` [n].
    """
    rows = np.flatnonzero(table["least"] < table["greatest"])
    return [Group(group, None) for group in _by_digest(table, rows) if len(group) > 1]


def nearly_same_pixels(table: np.ndarray, splits: np.ndarray,
                       advance: Callable[[int], None] = lambda count: None) -> Near:
    """Groups of images that look the same, with different pixels.

    Every image is compared with every other: 10⁸ comparisons a second on two cores. Splits are compared with each
    other before images within one are, for a leak is worse; what would be more than 10¹¹ comparisons is left out.

    Args:
        table: Of `traits.ROW` [n].
        splits: The number of each image's split: int [n].
        advance: Is told how many comparisons were made.
    """
    of_digest = _by_digest(table, np.flatnonzero(table["deviation"] >= LEAST_DEVIATION))
    first = np.array([group[0] for group in of_digest], np.int64)
    members = {number: np.flatnonzero(splits[first] == number) for number in np.unique(splits[first]).tolist()}
    pairs, left_out, compared = [], [], 0
    for one, other in comparisons(list(members)):
        count = len(members[one]) * len(members[other]) // (2 if one == other else 1)
        if compared + count > _MOST_COMPARISONS or len(pairs) > _MOST_PAIRS:
            left_out.append((one, other))
            continue
        compared += count
        for found in _close(table[first], members[one], members[other], advance):
            pairs += found
            if len(pairs) > _MOST_PAIRS:
                left_out.append((one, other))
                break
    groups = [(distance, np.sort(np.concatenate([of_digest[place] for place in places])))
              for places, distance in _components(pairs)]
    groups.sort(key=lambda group: (group[0], group[1][0]))
    return Near([Group(rows, distance) for distance, rows in groups], left_out)


def comparisons(splits: list[int]) -> list[tuple[int, int]]:
    """The pairs of splits that are compared: each with each other first, then each with itself."""
    return [*itertools.combinations(splits, 2), *((split, split) for split in reversed(splits))]


def _by_digest(table: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """The rows, those with the same digest together, by the first of each group."""
    if not len(rows):
        return []
    order = rows[np.argsort(table["digest"][rows], kind="stable")]
    digests = table["digest"][order]
    groups = np.split(order, np.flatnonzero(digests[1:] != digests[:-1]) + 1)
    return sorted(groups, key=lambda group: group[0])


def _close(table: np.ndarray, one: np.ndarray, other: np.ndarray,
           advance: Callable[[int], None]) -> Iterator[list[tuple[int, int, int]]]:
    """(place, place, differing bits) of the near duplicates of two sets of places of a table, block by block."""
    codes, same = table["code"], one is other
    for begin in range(0, len(one), _ROWS):
        left = one[begin:begin + _ROWS]
        signs = _signs(codes[left])
        for start in range(begin if same else 0, len(other), _COLUMNS):
            right = other[start:start + _COLUMNS]
            # Signs that agree count 1, others -1; the sum is exact in float32.
            rows, columns = np.nonzero(signs @ _signs(codes[right]).T >= CODE_BITS + 1 - 2 * _FIRST)
            rows, columns = left[rows], right[columns]
            if same:
                rows, columns = rows[rows < columns], columns[rows < columns]
            for first in range(0, len(rows), _PAIRS):  # where all images are alike, all pairs get here
                some, others = rows[first:first + _PAIRS], columns[first:first + _PAIRS]
                bits = _bits(table[some], table[others])
                kept = bits <= NEAR
                yield list(zip(some[kept].tolist(), others[kept].tolist(), bits[kept].tolist(), strict=True))
            advance(len(left) * len(right))


def _bits(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The differing bits of pairs of images, the fewest with one of them shifted or neither: int [n]."""
    least = _differing(ones["code"], others["code"])
    for shift in range(ones["shifted"].shape[1]):
        least = np.minimum(least, _differing(ones["code"], others["shifted"][:, shift]))
        least = np.minimum(least, _differing(ones["shifted"][:, shift], others["code"]))
    return least


def _differing(codes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.bitwise_xor(codes, others), axis=1).sum(1, dtype=np.int64)


def _signs(codes: np.ndarray) -> np.ndarray:
    """The bits of codes as -1 and 1: float32 [n, 144], of which the first is the same for all."""
    return 2 * np.unpackbits(codes, axis=1).astype(np.float32) - 1


def _components(pairs: list[tuple[int, int, int]]) -> list[tuple[list[int], int]]:
    """(places that hang together, the most differing bits of their pairs)."""
    above: dict[int, int] = {}

    def top(place: int) -> int:
        while (parent := above.setdefault(place, place)) != place:
            above[place] = place = above[parent]
        return place

    for one, other, _ in pairs:
        above[top(one)] = top(other)
    places: dict[int, list[int]] = {}
    for place in list(above):
        places.setdefault(top(place), []).append(place)
    most = dict.fromkeys(places, 0)
    for one, _, bits in pairs:
        most[top(one)] = max(most[top(one)], bits)
    return [(members, most[head]) for head, members in places.items()]
