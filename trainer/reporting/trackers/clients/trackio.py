"""Trackio: a database in TRACKIO_DIR, or a Space (TRACKIO_SPACE_ID) or server (TRACKIO_SERVER_URL)."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.reporting.trackers.tracker import Point, TrackedRun

HINT = "check TRACKIO_DIR; or TRACKIO_SPACE_ID, TRACKIO_SERVER_URL and their tokens, where those are set"
_PROJECT = "lockstep"


def connect(run: TrackedRun) -> TrackioRun:
    """Opens the run, or makes it.

    Args:
        run: The run; without an id its name gets some letters that no other run's has, for Trackio knows runs by name.
            TRACKIO_PROJECT names the project.
    """
    trackio: Any = importlib.import_module("trackio")  # an extra
    project = os.environ.get("TRACKIO_PROJECT") or _PROJECT
    name = run.tracker_id or f"{run.name}-{secrets.token_hex(3)}"
    return TrackioRun(trackio.init(project, name=name, resume="allow", config=dict(run.settings), embed=False),
                      project, name)


class TrackioRun:
    """A run in Trackio; a `Tracker`.

    Args:
        opened: A `trackio.Run`.
        project: Its project.
        name: Its name.

    Attributes:
        id, place: As in `Tracker`.
    """

    def __init__(self, opened: Any, project: str, name: str) -> None:
        self._opened, self._files = opened, f"{name}-report"
        self.id = name
        self.place = f"run {name}; `trackio show --project {project}`"

    def last_step(self) -> int:
        """The last step that Trackio has; -1 if it has none."""
        return self._opened._next_step - 1  # private; nothing public tells

    def log(self, points: Sequence[Point]) -> None:
        """Takes points; the client writes them in the background."""
        for point in points:
            self._opened.log(dict(point.metrics), step=point.step)

    def result(self, numbers: Mapping[str, float], words: Mapping[str, str], step: int, files: Sequence[Path]) -> None:
        """Takes the result as metrics of the last step, named result/…, and the files as artifacts."""
        self._opened.log({f"result/{name}": value for name, value in {**numbers, **words}.items()}, step=step)
        for path in files:
            self._opened.log_artifact(str(path), name=f"{self._files}-{path.stem}", type="report")

    def close(self, code: int | None) -> None:
        """Ends the run: waits for what is being written."""
        self._opened.finish()
