"""What came out of a sweep's runs, from their result.json: sweep.csv, sweep.json and a table."""

import contextlib
import csv
import io
import json

from rich.table import Table
from rich.text import Text

from trainer.errors import DataError
from trainer.storage import durable
from trainer.storage.model_dir import ModelDir

FIGURES = ("eval_accuracy", "eval_loss", "best_accuracy", "best_step", "step", "images_per_second", "wall_seconds")
# Where a run was done, not what it was. Which GPU, say, may differ from start to start.
_WHERE = {"model_dir", "data_dir", "resume", "num_gpus"}
_TITLES = {"eval_accuracy": "accuracy", "eval_loss": "loss", "best_accuracy": "best", "best_step": "at step",
           "images_per_second": "images/s", "wall_seconds": "seconds"}


def figures(run):
    """What came out of a run.

    Args:
        run: The `grid.Run`.

    Returns:
        `FIGURES` as a dict; None if the run isn't done, or was done with other settings.
    """
    known = _config(run)
    if known is None or any(name not in _WHERE for name, *_ in _differences(run, known)):
        return None
    try:
        result = json.loads(ModelDir(run.folder).result.read_text(encoding="utf-8"))
        if result["step"] < known["total_steps"] and not result["ended_early"]:
            return None  # of a start that was to be shorter
        result = {**result, "best_accuracy": result["best"]["accuracy"], "best_step": result["best"]["step"]}
        found = {name: _number(result[name]) for name in FIGURES}
        return None if found["eval_accuracy"] is None else found
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # written anew when the run is started


def _number(value):
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    raise TypeError(value)


def obstacles(run):
    """Why a run can't go on from what its folder holds.

    Args:
        run: The `grid.Run`.

    Returns:
        A list of lines; empty if it can, or has nothing to go on from.
    """
    known = _config(run)
    if known is None or not any(ModelDir(run.folder).checkpoints.glob("step-*/manifest.json")):
        return []
    return [f"{run.folder} holds a run with another --{name}: {theirs!r}; received {mine!r}"
            for name, mine, theirs, another_run in _differences(run, known) if another_run]


def _config(run):
    """What config.json in a run's folder holds; None if it can't be read."""
    with contextlib.suppress(DataError, OSError):
        return ModelDir(run.folder).read_config()


def _differences(run, known):
    return run.config.differences(type(run.config).from_mapping(known["given"]))


def rows(runs, codes):
    """A row for each run, the best first.

    Args:
        runs: List of `grid.Run`.
        codes: Name to exit code of those that ended otherwise than done.

    Returns:
        A list of dicts: run, the flags that vary, code, `FIGURES`. What isn't known is None.
    """
    flags = list(dict.fromkeys(flag for run in runs for flag in run.varied))
    found = []
    for run in runs:
        values = {flag: run.varied.get(flag, _word(getattr(run.config, flag, None))) for flag in flags}
        done = figures(run)
        found.append({"run": run.name, **values, "code": 0 if done else codes.get(run.name),
                      **(done or dict.fromkeys(FIGURES))})
    return sorted(found, key=lambda row: -1.0 if row["eval_accuracy"] is None else row["eval_accuracy"], reverse=True)


def _word(setting):
    return ",".join(setting) if isinstance(setting, tuple) else setting


def write(out, found):
    """Writes sweep.csv and sweep.json.

    Args:
        out: The sweep's folder, a `Path`.
        found: As `rows` returns them.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, found[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    durable.write_durably(out / "sweep.csv", text.getvalue())
    durable.write_durably(out / "sweep.json", json.dumps({"runs": found}, indent=2))


def codes(out):
    """How the runs ended that aren't done, as sweep.json knows it: name to exit code."""
    try:
        known = json.loads((out / "sweep.json").read_text(encoding="utf-8"))["runs"]
        return {row["run"]: row["code"] for row in known if isinstance(row["code"], int)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def table(found):
    """The rows for people: a rich `Table` of what varies and what came out."""
    flags = [name for name in found[0] if name not in ("run", "code", *FIGURES)]
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in flags or ["run"]:
        shown.add_column(name, overflow="fold")
    for name in ("code", *FIGURES):
        shown.add_column(_TITLES.get(name, name), justify="right")
    for row in found:
        shown.add_row(*(Text(_cell(name, row[name])) for name in (*(flags or ["run"]), "code", *FIGURES)))
    return shown


def _cell(name, value):
    if value is None:
        return "-"
    forms = {"eval_accuracy": "{:.2%}", "best_accuracy": "{:.2%}", "eval_loss": "{:.4f}", "best_step": "{:,}",
             "step": "{:,}", "images_per_second": "{:,.0f}", "wall_seconds": "{:,.0f}"}
    return forms.get(name, "{}").format(value)
