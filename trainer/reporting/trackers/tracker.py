"""What a tracker is to this program: the contract that each module of clients/ keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """The run, as a tracker gets it.

    Args:
        name: The run's name: that of its folder.
        folder: Its folder.
        settings: Name to value: what was set and what became of it, without secrets.
        tracker_id: The run's id in the tracker, if an earlier start had one; else None.
    """

    name: str
    folder: Path
    settings: Mapping[str, str | int | float | bool]
    tracker_id: str | None


@dataclasses.dataclass(frozen=True)
class Point:
    """All metrics of a step.

    Args:
        step: The step.
        time: When they were measured, in seconds since 1970.
        metrics: Name with its split, such as train/loss, to number.
    """

    step: int
    time: float
    metrics: Mapping[str, float]


class Tracker(Protocol):
    """A run in a tracker, open. Every method may raise whatever the client raises.

    Attributes:
        id: The run's id, by which a later start goes on with it.
        place: Where the run can be seen, as a user reads it; no secret.
    """

    id: str
    place: str

    def last_step(self) -> int | None:
        """The last step that the tracker has; -1 if it has none, None if it can't tell."""
        ...

    def log(self, points: Sequence[Point]) -> None:
        """Takes points, whose steps rise and are beyond all that it took before."""
        ...

    def result(self, numbers: Mapping[str, float], words: Mapping[str, str], step: int, files: Sequence[Path]) -> None:
        """Takes what came out.

        Args:
            numbers, words: Name, such as eval_accuracy or exports/h5/accuracy, to value.
            step: The last step.
            files: Files of the report, to keep if the tracker keeps files.
        """
        ...

    def close(self, code: int | None) -> None:
        """Ends the run there, until a later start goes on with it.

        Args:
            code: The run's exit code; None if it ended without one, as by SIGKILL.
        """
        ...
