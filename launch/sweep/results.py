"""What the runs of a sweep reached, from their result.json: sweep.csv, sweep.json and a table."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from launch.sweep.grid import Run
from trainer.config import SettingChange
from trainer.errors import DataError
from trainer.options import shown_value
from trainer.process.exit import printable
from trainer.storage import durable
from trainer.storage.model_dir import ModelDir

FIGURES = ("eval_accuracy", "eval_loss", "best_accuracy", "best_step", "step", "images_per_second", "wall_seconds")
_SPLIT = "eval_split"  # what the accuracies are of
# Settings that say where a run was done, not what it was. The GPU, for example, may differ from start to start.
_LOCATION_FLAGS = {"model_dir", "data_dir", "resume", "num_gpus"}
_TITLES = {"eval_split": "split", "eval_accuracy": "accuracy", "eval_loss": "loss", "best_accuracy": "best",
           "best_step": "at step", "images_per_second": "images/s", "wall_seconds": "seconds"}
_FORMATS = {"eval_accuracy": "{:.2%}", "best_accuracy": "{:.2%}", "eval_loss": "{:.4f}", "best_step": "{:,}",
            "step": "{:,}", "images_per_second": "{:,.0f}", "wall_seconds": "{:,.0f}"}


def figures(run: Run) -> dict[str, Any] | None:
    """What a run reached.

    Returns:
        `FIGURES` and eval_split as a dict; None if the run isn't done, or was done with other settings.
    """
    saved_config = _config(run)
    if saved_config is None or any(change.name not in _LOCATION_FLAGS for change in _differences(run, saved_config)):
        return None
    try:
        result = json.loads(ModelDir(run.folder).result.read_text(encoding="utf-8"))
        if result["step"] < saved_config["total_steps"] and not result["ended_early"]:
            return None  # of a start with a smaller number of steps
        result = {**result, "best_accuracy": result["best"]["accuracy"], "best_step": result["best"]["step"]}
        values = {name: _number(result[name]) for name in FIGURES}
        return None if values["eval_accuracy"] is None else {_SPLIT: str(result.get(_SPLIT, "test")), **values}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # the file is written anew when the run is started


def _number(value: Any) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    raise TypeError(value)


def obstacles(run: Run) -> list[str]:
    """Why a run can't go on from what its folder holds.

    Returns:
        A line for each obstacle; empty if the run can go on, or has nothing to go on from.
    """
    saved_config = _config(run)
    if saved_config is None or not any(ModelDir(run.folder).checkpoints.glob("step-*/manifest.json")):
        return []
    return [f"{run.folder} holds a run with another --{change.name}: {shown_value(change.other_value)}; received "
            f"{shown_value(change.value)}"
            for change in _differences(run, saved_config) if change.another_run]


def _config(run: Run) -> dict[str, Any] | None:
    """What config.json in a run's folder holds; None if it can't be read."""
    with contextlib.suppress(DataError, OSError):
        return ModelDir(run.folder).read_config()


def _differences(run: Run, saved_config: Mapping[str, Any]) -> list[SettingChange]:
    saved = type(run.config).from_mapping(saved_config["given"])
    return run.config.inherit(saved).differences(saved)  # as the run itself goes on with what isn't given


def rows(runs: Sequence[Run], codes: Mapping[str, int]) -> list[dict[str, Any]]:
    """A row for each run, the best first.

    Args:
        runs: The sweep's.
        codes: A run's name to its exit code, for the runs that ended otherwise than done.

    Returns:
        A dict for each run: run, the flags that vary, code, eval_split, `FIGURES`. A value that isn't known is None.
    """
    flags = list(dict.fromkeys(flag for run in runs for flag in run.varied))
    table_rows = []
    for run in runs:
        values = {flag: run.varied.get(flag, _as_flag_value(getattr(run.config, flag, None))) for flag in flags}
        reached = figures(run)
        table_rows.append({"run": run.name, **values, "code": 0 if reached else codes.get(run.name),
                           **(reached or dict.fromkeys((_SPLIT, *FIGURES)))})
    return sorted(table_rows, key=_accuracy, reverse=True)


def _accuracy(row: Mapping[str, Any]) -> float:
    return -1.0 if row["eval_accuracy"] is None else row["eval_accuracy"]


def _as_flag_value(setting: Any) -> Any:
    return ",".join(setting) if isinstance(setting, tuple) else setting


def write(out: Path, table_rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes sweep.csv and sweep.json.

    Args:
        out: The sweep's folder.
        table_rows: As `rows` returns them.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table_rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows)
    durable.write_durably(out / "sweep.csv", text.getvalue())
    durable.write_durably(out / "sweep.json", json.dumps({"runs": table_rows}, indent=2))


def codes(out: Path) -> dict[str, int]:
    """How the runs that have ended did so, from sweep.json: name to exit code; empty if the file can't be read."""
    try:
        table_rows = json.loads((out / "sweep.json").read_text(encoding="utf-8"))["runs"]
        return {row["run"]: row["code"] for row in table_rows if isinstance(row["code"], int)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def table(table_rows: Sequence[Mapping[str, Any]]) -> Table:
    """A human-readable table of the flags that vary and of what the runs reached.

    Args:
        table_rows: As `rows` returns them.
    """
    flags = [name for name in table_rows[0] if name not in ("run", "code", _SPLIT, *FIGURES)]
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in flags or ["run"]:
        shown.add_column(name, overflow="fold")
    columns = ("code", _SPLIT, *FIGURES)
    for name in columns:
        shown.add_column(_TITLES.get(name, name), justify="right")
    for row in table_rows:
        shown.add_row(*(Text(printable(_cell(name, row[name]))) for name in (*(flags or ["run"]), *columns)))
    return shown


def _cell(name: str, value: Any) -> str:
    return "-" if value is None else _FORMATS.get(name, "{}").format(value)
