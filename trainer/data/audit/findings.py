"""All that was found in a data set: as rows with names, as JSON, and in sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.data.audit import duplicates, oddities
from trainer.data.audit.duplicates import Group, Near
from trainer.process.progress_bar import bar

if TYPE_CHECKING:
    from trainer.data.audit.scan import Scanned
    from trainer.data.audit.suspects import Suspects
    from trainer.data.dataset import Dataset

_NAMED, _NAMED_OF_A_GROUP = 5, 3
_ALL_ALIKE = 0.1  # of the images: 3.3 % of CIFAR-10's look like another, 77 % of the drawn shapes


class Example(NamedTuple):
    """An image as a user reads it: the name of its split, its id there, its own name, and the name of its class."""

    split: str
    id: int
    name: str
    label: str

    def __str__(self) -> str:
        return f"{self.name} ({self.split}, {self.label})"

    def as_json(self) -> dict[str, Any]:
        """The object that JSON has."""
        return {"split": self.split, "id": self.id, "name": self.name, "class": self.label}


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that was found.

    Args:
        data: The data set.
        scanned: The images that were read.
        same: Groups of images with the same pixels.
        near: Groups of images with nearly the same.
        odd: Kind of oddity to rows of the table, the worst first.
        suspects: Labels that are likely wrong, of each split that a run was measured on.
    """

    data: Dataset
    scanned: Scanned
    same: Sequence[Group]
    near: Near
    odd: dict[str, np.ndarray]
    suspects: Sequence[Suspects] = ()

    def example(self, row: int) -> Example:
        """The image of a row of the table."""
        name = list(self.data.splits)[self.scanned.splits[row]]
        return named(self.data, name, int(self.scanned.ids[row]))

    def crosses(self, group: Group) -> bool:
        """Whether a group lies in more than one split."""
        return len(np.unique(self.scanned.splits[group.rows])) > 1

    def disagrees(self, group: Group) -> bool:
        """Whether a group has more than one label."""
        labels = [split.labels for split in self.data.splits.values()]
        places = zip(self.scanned.splits[group.rows].tolist(), self.scanned.ids[group.rows].tolist(), strict=True)
        return len({int(labels[split][example]) for split, example in places}) > 1

    def not_compared(self) -> list[tuple[str, str]]:
        """Pairs of splits whose images were not all compared for near duplicates."""
        names = list(self.data.splits)
        return [(names[one], names[other]) for one, other in self.near.left_out]

    def as_json(self) -> dict[str, Any]:
        """Everything, with all names."""
        def groups(found: Iterable[Group]) -> list[dict[str, Any]]:
            return [{"distance": group.distance, "across_splits": self.crosses(group),
                     "several_labels": self.disagrees(group),
                     "images": [self.example(row).as_json() for row in group.rows.tolist()]} for group in found]

        return {"images_read": len(self.scanned.table),
                "images": {name: split.size for name, split in self.data.splits.items()},
                "same_pixels": groups(self.same), "nearly_same_pixels": groups(self.near.groups),
                "not_compared": self.not_compared(),
                **{kind: [self.example(row).as_json() for row in rows.tolist()] for kind, rows in self.odd.items()},
                "likely_wrong_labels": [label for each in self.suspects for label in each.as_json(self.data)]}

    def sentences(self) -> list[str]:
        """A warning for each kind of finding that there is, the gravest first."""
        said = [*self._of_groups(self.same, "the same pixels", " = ")]
        alike = sum(len(group.rows) for group in self.near.groups) / max(1, len(self.scanned.table))
        if alike > _ALL_ALIKE:
            said.append(f"{alike:.0%} of the images look nearly like another: either many are copies (augmented, "
                        "frames of a film), or all are so alike, as drawings are, that this can't be told: look at the "
                        "page (--out) before you remove any")
        said += self._of_groups(self.near.groups, "nearly the same pixels", " ~ ")
        for one, other in self.not_compared():
            where = f"within {one}" if one == other else f"between {one} and {other}"
            said.append(f"near duplicates {where} were not all looked for: too many images, or too many alike; "
                        "--images=N looks at some")
        for oddity in oddities.ODDITIES:
            rows = self.odd.get(oddity.kind, np.zeros(0, int)).tolist()
            if rows:
                names = _some([str(self.example(row)) for row in rows[:_NAMED]], len(rows), ", ")
                said.append(f"{len(rows):,} of {len(self.scanned.table):,} images {oddity.words}: {names}; look at "
                            "them")
        return said + [sentence for each in self.suspects for sentence in each.sentences(self.data)]

    def _of_groups(self, groups: Sequence[Group], what: str, sign: str) -> Iterable[str]:
        """The sentences about groups with the same pixels or nearly so."""
        crossing = [group for group in groups if self.crosses(group)]
        disagreeing = [group for group in groups if self.disagrees(group)]
        rest = [group for group in groups if not (self.crosses(group) or self.disagrees(group))]
        if crossing:
            rows = np.concatenate([group.rows for group in crossing])
            counts = np.bincount(self.scanned.splits[rows], minlength=len(self.data.splits))
            each = ", ".join(f"{count:,} of {name}" for name, count in zip(self.data.splits, counts, strict=True)
                             if count)
            yield (f"a leak: {_groups(crossing)} with {what} in more than one split, {each}: the accuracy on such "
                   f"images says nothing of new ones: {self._shown(crossing, sign)}; remove them from one split")
        if disagreeing:
            sure = disagreeing[0].distance is None
            advice = "correct the labels" if sure else "a label may be wrong, or they only look alike"
            yield (f"{_groups(disagreeing)} with {what} under more than one label: {self._shown(disagreeing, sign)}; "
                   f"{advice}")
        if rest:
            more = sum(len(group.rows) - 1 for group in rest)
            yield (f"{_groups(rest)} with {what} within a split, {more:,} more than one of each: "
                   f"{self._shown(rest, sign)}; they count that much more in training")

    def _shown(self, groups: Sequence[Group], sign: str) -> str:
        texts = [_some([str(self.example(row)) for row in group.rows[:_NAMED_OF_A_GROUP].tolist()], len(group.rows),
                       sign) for group in groups[:_NAMED]]
        return _some(texts, len(groups), "; ")


def find(data: Dataset, scanned: Scanned, suspects: Sequence[Suspects] = ()) -> Findings:
    """Looks for everything that the table tells.

    Args:
        data: The data set.
        scanned: Its images.
        suspects: Labels that are likely wrong.
    """
    sizes = np.bincount(scanned.splits, minlength=len(data.splits)).tolist()
    with bar("comparisons", sum(sizes) ** 2 // 2) as advance:
        near = duplicates.nearly_same_pixels(scanned.table, scanned.splits, advance)
    return Findings(data, scanned, duplicates.same_pixels(scanned.table), near, oddities.odd_images(scanned.table),
                    suspects)


def named(data: Dataset, split: str, example: int) -> Example:
    """An example of a split with its name and its class."""
    part = data.splits[split]
    return Example(split, example, part.name_of(example), data.classes[part.labels[example]])


def _groups(groups: Sequence[Group]) -> str:
    return f"{len(groups):,} group{'s' if len(groups) > 1 else ''} of images"


def _some(texts: Sequence[str], count: int, sign: str) -> str:
    return sign.join(texts) + (f" and {count - len(texts):,} more" if count > len(texts) else "")
