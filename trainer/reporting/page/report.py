"""report.html: what a run is, how good it is, what it gets wrong, and where its time went, on one page."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.config import Config
from trainer.reporting.page.charts import Line, line_chart, reliability_chart
from trainer.reporting.page.pictures import Picture, data_address
from trainer.reporting.page.render import render

if TYPE_CHECKING:
    from trainer.data.augment.preview import Samples
    from trainer.quality.predictions import Predictions
    from trainer.reporting.timeline.goodput import Start

MISTAKES = 24
_MATRIX_UP_TO = 20  # classes
# A cause of `goodput` to what a reader sees: words, the number of a colour, and how strong it is.
TIMES = {"training": ("steps that count", 4, 1.0), "start": ("start: imports, data, model", 3, 1.0),
         "compile": ("compiling", 6, 1.0), "input_wait": ("waiting for input", 5, 1.0),
         "evaluation": ("evaluating", 1, 1.0), "checkpoint": ("waiting for saves", 5, 0.55),
         "export": ("exporting and reporting", 3, 0.55), "lost": ("steps that were lost", 2, 1.0),
         "stopped": ("stopped, between starts", 2, 0.45)}


def report_page(*, name: str, config: Mapping[str, Any], result: Mapping[str, Any],
                metrics: Sequence[Mapping[str, Any]], starts: Sequence[Start], mistakes: Sequence[Picture],
                samples: Samples) -> str:
    """The text of report.html.

    Args:
        name: The run's name.
        config: What config.json holds.
        result: What result.json holds.
        metrics: The lines of metrics.jsonl.
        starts: The starts of the run.
        mistakes: The worst mistakes.
        samples: The run's first examples.
    """
    quality = result["quality"]
    given, defaults = config["given"], dataclasses.asdict(Config(model_dir="."))
    changed = {key: value for key, value in given.items()
               if key != "model_dir" and _plain(value) != _plain(defaults.get(key))}
    loss_chart, accuracy_chart = curves(metrics, result["eval_split"])
    before, after = ([Picture(data_address(image), label, "") for image, label in zip(images, labels, strict=True)]
                     for images, labels in ((samples.before, samples.names), (samples.after, samples.names_after)))
    return render("report.html", name=name, config=config, result=result, goodput=result["goodput"], now=time.time(),
                  loss_chart=loss_chart, accuracy_chart=accuracy_chart, by_class=_by_class(quality),
                  matrix=_matrix(quality), reliability_chart=reliability_chart(quality["reliability"]),
                  mistakes=mistakes, samples_before=before, samples_after=after,
                  time_parts=time_parts(result["goodput"]), starts=starts, changed_settings=_rows(changed),
                  settings=_rows(given), versions=_rows({**config["versions"], **{
                      key: config[key] for key in ("devices", "precision", "xla", "strategy")},
                      "data": config["data"]["fingerprint"], "classes": len(config["data"]["classes"])}))


def worst_mistakes(predictions: Predictions) -> np.ndarray:
    """The rows of the wrong answers of which the model was surest: int64 [up to 24]."""
    wrong = np.flatnonzero(~predictions.correct)
    order = np.argsort(-np.nan_to_num(predictions.confidence[wrong]), kind="stable")
    return wrong[order[:MISTAKES]]


def pictures_of(predictions: Predictions, rows: np.ndarray, images: np.ndarray, names: Sequence[str]) -> list[Picture]:
    """Examples with what they are and what was said.

    Args:
        predictions: What was said.
        rows: Rows of the predictions.
        images: uint8 [rows, height, width, channels].
        names: The name of each example.
    """
    classes = predictions.classes
    return [Picture(data_address(image), f"{classes[predictions.labels[row]]} → {classes[predictions.predicted[row]]}",
                    f"{predictions.confidence[row]:.1%} sure; {name}")
            for row, image, name in zip(rows.tolist(), images, names, strict=True)]


def curves(metrics: Sequence[Mapping[str, Any]], evaluated: str) -> tuple[Any, Any]:
    """(the chart of the loss, the chart of the accuracy) of a run's metrics.

    Args:
        metrics: The lines of metrics.jsonl; what has no numbers is left out.
        evaluated: The name of the evaluated split.
    """
    charts = []
    for figure, label in (("loss", "loss (nats)"), ("accuracy", "accuracy")):
        lines = [Line("", points(metrics, "train", figure), 1, faint=True),
                 Line("train, mean between evaluations", points(metrics, "eval", f"train_{figure}"), 1),
                 Line(evaluated, points(metrics, "eval", figure), 2)]
        charts.append(line_chart(lines, "epoch", label, percentages=figure == "accuracy"))
    return charts[0], charts[1]


def points(metrics: Sequence[Mapping[str, Any]], split: str, figure: str) -> list[tuple[float, float]]:
    """(epoch, figure) of each line of a split that has both."""
    return [(line["epoch"], line[figure]) for line in metrics if line.get("split") == split
            and all(isinstance(line.get(key), (int, float)) for key in ("epoch", figure))]


def time_parts(goodput: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a run's time that took any, as the page shows them."""
    total = goodput["wall_seconds"] or 1
    return [{"name": words, "color": color, "opacity": opacity, "seconds": goodput["seconds"][cause],
             "share": goodput["seconds"][cause] / total}
            for cause, (words, color, opacity) in TIMES.items() if goodput["seconds"].get(cause)]


def _by_class(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of each class, the worst first; those without examples last."""
    rows = [{"name": name, **figures} for name, figures in quality["by_class"].items()]
    return sorted(rows, key=_worst_first)


def _worst_first(row: Mapping[str, Any]) -> float:
    return 2.0 if row["recall"] is None else row["recall"]


def _matrix(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the confusion matrix, shaded by the share of the row; none where it would be too large to read."""
    confusion, classes = quality.get("confusion"), list(quality["by_class"])
    if not confusion or len(classes) > _MATRIX_UP_TO:
        return []
    return [{"name": name, "cells": [{"count": count, "share": 0.8 * count / max(1, sum(row))} for count in row]}
            for name, row in zip(classes, confusion, strict=True)]


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, _plain(value)) for key, value in values.items()]


def _plain(value: Any) -> str:
    """A setting as a user writes it."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
