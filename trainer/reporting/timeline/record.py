"""Writes timeline.jsonl: starts, stops, saves and phases of a run, each with its time.

A line is written when something changes, so the time from one line to the next belongs to the phase that the first of
them began. `time` is the clock's, in seconds since 1970; `elapsed` is the monotonic clock's, in seconds since this
start of the run, so that a clock that is set changes no length. No line is ever cut off when a run resumes.

    {"time": …, "elapsed": 0.4, "event": "start", "step": 0, "version": "0.2.0", "host": "a", "pid": 7}
    {"time": …, "elapsed": 3.1, "event": "phase", "step": 0, "phase": "reading data"}
    {"time": …, "elapsed": 5.9, "event": "resume", "step": 1200}
    {"time": …, "elapsed": 9.0, "event": "phase", "step": 1200, "phase": "training"}
    {"time": …, "elapsed": 39.0, "event": "progress", "step": 1500}        at most every 30 seconds
    {"time": …, "elapsed": 44.2, "event": "save", "step": 1560}
    {"time": …, "elapsed": 50.0, "event": "stop", "step": 1600, "code": 75, "cause": "asked to stop (SIGTERM); …"}
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer import __version__
from trainer.errors import LockstepError
from trainer.reporting import jsonl

PROGRESS_SECONDS = 30.0
_MOST_OF_A_CAUSE = 300  # characters


class Timeline:
    """Appends to timeline.jsonl while it is entered; leaving it writes why the run stopped.

    Each line is handed to the operating system at once, so a process that is killed loses none; the lines are on the
    disk when the next checkpoint is. A line that can't be written is left out: no run ends for that.

    Args:
        path: The file; None on workers that aren't the chief, which write none.
        began: When this start of the run began, as `time.monotonic` gave it.

    Attributes:
        path: The argument.
        step: Steps done, of which the loop tells.
    """

    def __init__(self, path: Path | None, began: float) -> None:
        self.path, self._began, self.step = path, began, 0
        self._phase, self._written = "starting", 0.0
        self._descriptor = -1

    def __enter__(self) -> Timeline:
        if self.path:
            with contextlib.suppress(OSError):
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                if _ends_inside_a_line(self.path):  # what a power cut left
                    os.write(self._descriptor, b"\n")
        self._write("start", version=__version__, host=socket.gethostname(), pid=os.getpid())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, LockstepError):
            self._write("stop", code=error.code, cause=error.cause[:_MOST_OF_A_CAUSE])
        else:
            self._write("stop", code=None if kind else 0, cause=kind.__name__ if kind else "done")
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def enter(self, phase: str) -> None:
        """Begins a phase, which lasts until another begins.

        Args:
            phase: Such as "training".
        """
        if phase != self._phase:
            self._phase = phase
            self._write("phase", phase=phase)
        elif time.monotonic() - self._written > PROGRESS_SECONDS:
            self._write("progress")

    @contextlib.contextmanager
    def phase(self, phase: str) -> Iterator[None]:
        """Puts a block into a phase; after it the phase before it goes on.

        Args:
            phase: Such as "evaluating".
        """
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def resumed(self, step: int) -> None:
        """Notes the step at which this start begins."""
        self.step = step
        self._write("resume")

    def saving(self) -> None:
        """Notes that a save of the step begins."""
        self._write("save")

    def lines(self) -> list[dict[str, Any]]:
        """What the file holds, up to now; empty if it can't be read."""
        self._write("progress")
        with contextlib.suppress(OSError):
            return jsonl.read(self.path) if self.path else []
        return []

    def _write(self, event: str, **more: Any) -> None:
        if self._descriptor < 0:
            return
        self._written = time.monotonic()
        line = {"time": round(time.time(), 3), "elapsed": round(self._written - self._began, 3), "event": event,
                "step": self.step, **more}
        with contextlib.suppress(OSError):
            os.write(self._descriptor, json.dumps(line).encode() + b"\n")


def _ends_inside_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
