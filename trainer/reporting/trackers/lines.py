"""What trackers get, from a run's own files: points from metrics.jsonl, settings from config.json, the result."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.reporting.trackers.tracker import Point

_NOT_METRICS = {"time", "step", "epoch", "split"}
_LONGEST = 500  # letters of a setting
_NO_RESULTS = {"class_accuracy", "quality", "goodput", "exports", "best"}  # large, or taken apart below


class MetricsLines:
    """Reads metrics.jsonl as far as checkpoints cover it, each line once.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self._steps: dict[int, Point] = {}

    def read(self, size: int) -> None:
        """Reads on.

        Args:
            size: How many bytes of the file are covered; less than before: nothing is read.
        """
        if size <= self._offset:
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            text = file.read(size - self._offset)
        self._offset = size
        for line in text.splitlines():
            values = json.loads(line)
            before = self._steps.get(values["step"])
            metrics = {**(before.metrics if before else {}), **_metrics(values)}
            self._steps[values["step"]] = Point(values["step"], values["time"], metrics)

    def take(self, after: int, through: int) -> list[Point]:
        """The points of some steps, which are forgotten then, as all before them are.

        Args:
            after, through: The step before the first of them, and the last.
        """
        steps = sorted(step for step in self._steps if step <= through)
        points = [self._steps.pop(step) for step in steps]
        return [point for point in points if point.step > after]

    def put_back(self, points: list[Point]) -> None:
        """Remembers points again that a tracker didn't take."""
        self._steps |= {point.step: point for point in points}


def _metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line, by a name with the split."""
    return {"epoch": line["epoch"], **{f"{line['split']}/{name}": value for name, value in line.items()
                                       if name not in _NOT_METRICS and _is_number(value)}}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def settings_of(config: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Name to value of what config.json holds: the settings as they were given, what became of them, versions, data."""
    return {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in _flat(config)
            if value is not None and value != ""}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Each name, with those above it, and its value; a list is a comma list."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            if name not in ("given", "parts"):
                yield from _flat(value, f"{above}{name}/")
        elif isinstance(value, list):
            yield f"{above}{name}", ",".join(map(str, value))
        else:
            yield f"{above}{name}", value


def result_of(result: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """(numbers, words) of result.json for a tracker's summary: name, such as exports/h5/accuracy, to value."""
    values = {**{name: value for name, value in result.items() if name not in _NO_RESULTS},
              **{f"best/{name}": value for name, value in result["best"].items()},
              **{f"exports/{name}/{key}": export.get(key) for name, export in result["exports"].items()
                 for key in ("accuracy", "bytes")},
              **{f"quality/{name}": result["quality"].get(name) for name in ("accuracy", "macro_f1", "ece")}}
    return ({name: value for name, value in values.items() if _is_number(value)},
            {name: value for name, value in values.items() if isinstance(value, str)})
