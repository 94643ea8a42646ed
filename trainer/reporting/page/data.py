"""The page of a data set: what it holds twice and on both sides of a split, what is odd, which labels to doubt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.data.audit.oddities import ODDITIES
from trainer.data.audit.traits import CODE_BITS
from trainer.reporting.page.pictures import Picture, data_address
from trainer.reporting.page.render import render

if TYPE_CHECKING:
    from trainer.data.audit.duplicates import Group
    from trainer.data.audit.findings import Findings

_MOST_GROUPS, _MOST_PICTURES, _MOST_OF_A_GROUP = 24, 24, 6
_SHORT = {"one_colour": "of one colour", "low_information": "nearly empty", "dark": "dark", "bright": "bright",
          "blurry": "blurred", "odd_size": "of an odd size", "odd_aspect_ratio": "of an odd shape"}


class Section(NamedTuple):
    """A kind of finding.

    Args:
        short: What the number at the top counts.
        title, note: The heading, and what stands below it.
        total: How many there are.
        groups: Groups of pictures that are shown together; or
        pictures: pictures.
    """

    short: str
    title: str
    note: str
    total: int
    groups: Sequence[dict[str, Any]] = ()
    pictures: Sequence[Picture] = ()

    @property
    def left(self) -> int:
        """How many aren't shown."""
        return self.total - len(self.groups) - len(self.pictures)


def data_page(findings: Findings) -> str:
    """The text of a page about a data set; reads the images that it shows once more.

    Args:
        findings: All that was found.
    """
    data = findings.data
    return render("data.html", name=data.name, sentence=data.sentence(), warnings=data.warnings, now=time.time(),
                  read=len(findings.scanned.table), total=sum(split.size for split in data.splits.values()),
                  sections=[*_copies(findings), *_odd(findings), *([_doubted(findings)] if findings.suspects else [])])


def _copies(findings: Findings) -> list[Section]:
    """The sections of images that are there twice."""
    groups = [*findings.same, *findings.near.groups]

    def within(group: Group) -> bool:
        return not (findings.crosses(group) or findings.disagrees(group))

    kinds = [("groups in more than one split", "A leak: on both sides of a split", findings.crosses,
              "What is measured on such images says nothing of new ones: remove them from one split."),
             ("groups under more than one label", "Under more than one label", findings.disagrees,
              "Of images that are the same, at most one label is right."),
             ("groups within a split", "Twice in a split", within, "They count that much more in training.")]
    sections = []
    for short, title, belongs, note in kinds:
        chosen = [group for group in groups if belongs(group)]
        sections.append(Section(short, title, note, len(chosen), groups=[
            {"note": _closeness(group), "pictures": [
                _picture(findings, row) for row in group.rows[:_MOST_OF_A_GROUP].tolist()]}
            for group in chosen[:_MOST_GROUPS]]))
    return sections


def _closeness(group: Group) -> str:
    near = f"nearly the same: up to {group.distance} of {CODE_BITS} bits differ"
    same = "the same pixels" if group.distance is None else near
    more = len(group.rows) - _MOST_OF_A_GROUP
    return f"{same}; {more:,} more images" if more > 0 else same


def _odd(findings: Findings) -> list[Section]:
    """The sections of odd images."""
    found = [(oddity, findings.odd.get(oddity.kind)) for oddity in ODDITIES]
    return [Section(_SHORT[oddity.kind], _SHORT[oddity.kind].capitalize(), f"They {oddity.words}. The worst first.",
                    len(rows), pictures=[_picture(findings, row) for row in rows[:_MOST_PICTURES].tolist()])
            for oddity, rows in found if rows is not None]


def _doubted(findings: Findings) -> Section:
    """The section of labels that are likely wrong."""
    labels = [label for suspects in findings.suspects for label in suspects.as_json(findings.data)]
    pictures = [Picture(_address(findings, label["split"], label["id"]), f"{label['class']} → {label['suggested']}",
                        f"{label['probability']:.1%} → {label['suggested_probability']:.1%}; {label['name']}")
                for label in labels[:_MOST_PICTURES]]
    return Section("labels that are likely wrong", "Labels that are likely wrong",
                   "The label, and what the run says it is rather; the most suspicious first. Some are the run's own "
                   "mistakes.", len(labels), pictures=pictures)


def _picture(findings: Findings, row: int) -> Picture:
    """An image with its class, its split and its name."""
    example = findings.example(row)
    return Picture(_address(findings, example.split, example.id), example.label, f"{example.split}; {example.name}")


def _address(findings: Findings, split: str, example: int) -> str:
    """An image as a data: address; an empty one if it can't be read any more."""
    _, pixels = findings.data.splits[split].inspect(example)
    return "" if pixels is None else data_address(pixels)
