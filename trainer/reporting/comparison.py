"""Runs side by side: the settings that differ, how good and how fast each is, and whether two differ by chance."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import DataError
from trainer.quality.intervals import mcnemar, wilson
from trainer.quality.predictions import Predictions
from trainer.reporting import jsonl
from trainer.storage.model_dir import ModelDir


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A run, as it lies on the disk.

    Args:
        name: What the user calls it.
        config: What config.json holds.
        result: What result.json holds; empty for a run that isn't done.
        metrics: The lines of metrics.jsonl.
        predictions: What the exported weights said; None if that isn't there.
        note: What is missing of the run, in a sentence; empty if nothing is.
    """

    name: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    predictions: Predictions | None
    note: str

    @classmethod
    def read(cls, path: str) -> ComparedRun:
        """Reads a run.

        Raises:
            DataError: if the folder is not a run directory.
        """
        model_dir, notes = ModelDir(path), []
        config = model_dir.read_config()
        result = _read_result(model_dir.result)
        metrics = jsonl.read(model_dir.metrics) if model_dir.metrics.exists() else []
        predictions = None
        if not result:
            notes.append("it isn't done: the figures are those of its last evaluation")
        elif not model_dir.predictions.exists():
            notes.append("it has no predictions.npz, which older versions didn't write: no paired test")
        else:
            try:
                predictions = Predictions.read(model_dir.predictions)
            except DataError as error:
                notes.append(f"no paired test: {error.cause}")
        return cls(path.rstrip("/") or path, config, result, metrics, predictions, "; ".join(notes))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that make the run what it is."""
        return {name: value for name, value in self.config["given"].items() if name not in ("model_dir", "resume")}

    def figures(self) -> dict[str, Any]:
        """How good and how fast the run is; None for what isn't known.

        Returns:
            A dict: split, examples, accuracy, accuracy_interval, macro_f1, ece, best_accuracy, loss, step, epoch,
            images_per_second, replicas, wall_seconds, goodput.
        """
        result, quality = self.result, self.result.get("quality") or {}
        last = next((line for line in reversed(self.metrics) if line.get("split") == "eval"), {})
        best = max((line["accuracy"] for line in self.metrics if line.get("split") == "eval"
                    and isinstance(line.get("accuracy"), float)), default=None)
        accuracy = quality.get("accuracy", result.get("test_accuracy"))
        accuracy = accuracy if accuracy is not None else result.get("eval_accuracy", last.get("accuracy"))
        split = "test" if result.get("test_accuracy") is not None else result.get("eval_split", "evaluated")
        examples = quality.get("examples") or self.config["data"].get(f"{split}_examples") or last.get("examples")
        bounds = quality.get("accuracy_interval")
        if bounds is None and accuracy is not None and examples:
            bounds = [round(float(bound), 6) for bound in wilson(round(accuracy * examples), examples)]
        return {"split": quality.get("split", split), "examples": examples, "accuracy": accuracy,
                "accuracy_interval": bounds, "macro_f1": quality.get("macro_f1"), "ece": quality.get("ece"),
                "best_accuracy": best, "loss": result.get("eval_loss", last.get("loss")),
                "step": result.get("step", last.get("step")), "epoch": result.get("epoch", last.get("epoch")),
                "images_per_second": result.get("images_per_second"), "replicas": result.get("replicas"),
                "wall_seconds": result.get("wall_seconds"), "goodput": (result.get("goodput") or {}).get("share")}


def compare(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """Puts runs side by side.

    Args:
        runs: Two or more.

    Returns:
        A dict of what JSON can hold: runs (for each its name, figures and note), settings (of those that differ, the
        name and each run's value), pairs (for each two runs what `paired` returns).
    """
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    differ = {name: each for name, each in values.items() if any(value != each[0] for value in each)}
    return {"runs": [{"run": run.name, **run.figures(), "note": run.note} for run in runs], "settings": differ,
            "pairs": [paired(first, second) for first, second in itertools.combinations(runs, 2)]}


def paired(first: ComparedRun, second: ComparedRun) -> dict[str, Any]:
    """Whether two runs differ by more than chance, on the examples that both answered.

    Returns:
        A dict: first, second, and examples, only_first, only_second, difference (of the accuracies, second - first)
        and what `mcnemar` returns; note says what to know, or why there is no test.
    """
    result: dict[str, Any] = {"first": first.name, "second": second.name}
    one, other = first.predictions, second.predictions
    if one is None or other is None:
        return {**result, "note": "no paired test: " + " and ".join(
            run.name for run in (first, second) if run.predictions is None) + " has no predictions"}
    if reason := _other_examples(first, second):
        return {**result, "note": f"no paired test: {reason}"}
    ids, rows, other_rows = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    if not len(ids) or (one.labels[rows] != other.labels[other_rows]).any():
        return {**result, "note": "no paired test: their examples have other labels"}
    right, other_right = one.correct[rows], other.correct[other_rows]
    only_first, only_second = int(np.sum(right & ~other_right)), int(np.sum(~right & other_right))
    left_out = len(one.ids) + len(other.ids) - 2 * len(ids)
    return {**result, "split": one.split, "examples": len(ids), "only_first": only_first, "only_second": only_second,
            "difference": round((only_second - only_first) / len(ids), 6), **mcnemar(only_first, only_second),
            "note": f"{left_out:,} examples that only one of them answered are left out" if left_out else ""}


def _other_examples(first: ComparedRun, second: ComparedRun) -> str | None:
    """Why two runs weren't measured on the same examples, or None."""
    one, other = first.predictions, second.predictions
    assert one is not None and other is not None
    if one.split != other.split:
        return f"one was measured on the {one.split} split, the other on {other.split}"
    if one.classes != other.classes:
        return "their classes differ"
    data, other_data = first.config["data"], second.config["data"]
    same = (data.get("parts") == other_data.get("parts") if data.get("parts") else
            data.get("fingerprint") == other_data.get("fingerprint"))
    if not same:
        return "their data differs"
    if one.split == "validation" and (first.settings.get("validation_fraction") !=
                                      second.settings.get("validation_fraction")):
        return "other images were held back to validate on"
    return None


def _read_result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be read ({type(error).__name__}: {error})",
                        "run the training command again: it writes the file anew") from None
    return result if isinstance(result, dict) else {}
