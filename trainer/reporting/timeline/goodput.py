"""Goodput: the share of a run's wall time in steps that count, and where the rest of the time went.

The word is Google's (2024, "Introducing ML Productivity Goodput"): what a job's devices did that is still there at
its end, over all the time since its first start.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# A phase of timeline.jsonl to the cause of the time that it takes.
CAUSES = {"starting": "start", "reading data": "start", "building": "start", "compiling": "compile",
          "training": "training", "evaluating": "evaluation", "saving": "checkpoint", "exporting": "export",
          "reporting": "export"}
_REPEATED = {"training", "evaluation", "checkpoint"}  # lost where a later start went on from an earlier step


class Interval(NamedTuple):
    """A stretch of a start.

    Args:
        cause: What took the time: a value of `CAUSES`.
        begin, end: Seconds since the start.
        first_step, last_step: Steps done at both.
    """

    cause: str
    begin: float
    end: float
    first_step: int
    last_step: int


@dataclasses.dataclass
class Start:
    """One start of a run.

    Args:
        time: When it began, in seconds since 1970.
        intervals: What it did, in order.
        saves: (seconds since the start, step) of each save.
        resumed: The step at which it began; None if it didn't come so far.
        code: The exit code that it ended with; None if it was killed, or still runs.
        cause: Why it ended; None likewise.
    """

    time: float
    intervals: list[Interval] = dataclasses.field(default_factory=list)
    saves: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    resumed: int | None = None
    code: int | None = None
    cause: str | None = None

    @property
    def seconds(self) -> float:
        """Its length, as far as it was told: up to 30 seconds less than that of a start that was killed."""
        return self.intervals[-1].end if self.intervals else 0.0

    @property
    def last_step(self) -> int:
        """The last step that it told of."""
        return self.intervals[-1].last_step if self.intervals else 0


def starts_of(lines: Iterable[Mapping[str, Any]]) -> list[Start]:
    """The starts of a run, in order.

    Args:
        lines: What timeline.jsonl holds; what can't be understood is left out.
    """
    starts: list[Start] = []
    at, phase, step = 0.0, "starting", 0
    for line in lines:
        numbers = [line.get(name) for name in ("time", "elapsed", "step")]
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers):
            continue
        clock, elapsed, done = map(float, numbers)  # pyright: ignore[reportArgumentType]
        event = line.get("event")
        if event == "start":
            starts.append(Start(clock - elapsed))
            at, phase, step = 0.0, "starting", 0
        if not starts:
            continue
        start, elapsed, done = starts[-1], max(at, elapsed), int(done)
        if event == "resume":
            start.resumed = step = done
        start.intervals.append(Interval(CAUSES.get(phase, "start"), at, elapsed, step, max(step, done)))
        at, step = elapsed, max(step, done)
        if event == "phase":
            phase = str(line.get("phase"))
        elif event == "save":
            start.saves.append((elapsed, done))
        elif event == "stop":
            start.code, start.cause = line.get("code"), str(line.get("cause"))
    return starts


def goodput(starts: Sequence[Start], input_share: float | None = None) -> dict[str, Any]:
    """The share of a run's time in steps that count, and the causes of the rest.

    Args:
        starts: As `starts_of` returns them.
        input_share: The share of the time of training that waits for input; None if it was not measured.

    Returns:
        A dict: share (None before the first step), wall_seconds (from the first start to now, without the time after a
        start that was done), starts, lost_steps, and seconds by cause: training, start, compile, input_wait (None if
        it was not measured), evaluation, checkpoint, export, lost, stopped.
    """
    seconds = dict.fromkeys(["training", "start", "compile", "input_wait", "evaluation", "checkpoint", "export", "lost",
                             "stopped"], 0.0)
    lost_steps, kept = 0, math.inf
    for start, later in zip(reversed(starts), [None, *reversed(starts[1:])], strict=False):
        if later:
            kept = min(kept, math.inf if later.resumed is None else later.resumed)
            # What is done may rest; a start after that, to export again for instance, isn't late.
            seconds["stopped"] += 0.0 if start.code == 0 else max(0.0, later.time - start.time - start.seconds)
        lost_steps += max(0, start.last_step - int(min(kept, start.last_step)))
        for cause, length in _counted(start, kept):
            seconds[cause] += length
    if input_share is not None:
        seconds["input_wait"] = input_share * seconds["training"]
        seconds["training"] -= seconds["input_wait"]
    total = math.fsum(seconds.values())
    rounded: dict[str, float | None] = {name: round(value, 3) for name, value in seconds.items()}
    return {"share": round(seconds["training"] / total, 4) if total and seconds["training"] else None,
            "wall_seconds": round(total, 3), "starts": len(starts), "lost_steps": lost_steps,
            "seconds": {**rounded, **({"input_wait": None} if input_share is None else {})}}


def _counted(start: Start, kept: float) -> Iterator[tuple[str, float]]:
    """(cause, seconds) of what a start did, where steps after `kept` were done again later."""
    for cause, begin, end, first, last in start.intervals:
        lost = 0.0
        if cause in _REPEATED and last > kept:
            lost = (end - begin) * (1.0 if first >= kept else (last - kept) / (last - first))
        yield "lost", lost
        yield cause, end - begin - lost
