"""The page of several runs, and the words that it shares with the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.reporting.page.charts import Line, line_chart
from trainer.reporting.page.render import count, duration, interval, percent, render
from trainer.reporting.page.report import points

if TYPE_CHECKING:
    from trainer.reporting.comparison import ComparedRun

_COLORS = 6
_LIKELY = 0.05


def comparison_page(comparison: Mapping[str, Any], runs: Sequence[ComparedRun]) -> str:
    """The text of a page that compares runs.

    Args:
        comparison: As `compare` returns it.
        runs: The runs, in the same order.
    """
    charts = [line_chart([Line(run.name, points(run.metrics, "eval", figure), 2 + number % (_COLORS - 1))
                          for number, run in enumerate(runs)], "epoch", f"evaluated {label}",
                         percentages=figure == "accuracy")
              for figure, label in (("accuracy", "accuracy"), ("loss", "loss (nats)"))]
    return render("compare.html", runs=comparison["runs"], figures=figure_rows(comparison),
                  settings=setting_rows(comparison), pairs=[pair_sentence(pair) for pair in comparison["pairs"]],
                  charts=charts, now=time.time())


def figure_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table of figures: what it is, and each run's, as a user reads them."""
    shown = {"accuracy": percent, "accuracy_interval": _interval, "macro_f1": _number, "ece": percent,
             "best_accuracy": percent, "loss": _number, "split": str, "examples": count, "step": count,
             "epoch": _number, "images_per_second": count, "replicas": count, "wall_seconds": _duration,
             "goodput": _whole_percent}
    words = {"accuracy_interval": "95 % interval", "macro_f1": "macro F1", "ece": "calibration error",
             "best_accuracy": "best evaluated accuracy", "images_per_second": "images/s", "wall_seconds": "wall time"}
    return [[words.get(name, name), *(form(each[name]) for each in comparison["runs"])]
            for name, form in shown.items() if any(each[name] is not None for each in comparison["runs"])]


def setting_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table of the settings that differ."""
    return [[name, *map(_setting, values)] for name, values in comparison["settings"].items()]


def pair_sentence(pair: Mapping[str, Any]) -> str:
    """What the paired test says of two runs."""
    both = f"{pair['first']} and {pair['second']}"
    if "mid_p" not in pair:
        return f"{both}: {pair['note']}"
    better = pair["second"] if pair["difference"] > 0 else pair["first"]
    verdict = (f"{better} is better by {abs(100 * pair['difference']):.2f} points" if pair["mid_p"] < _LIKELY else
               f"a difference of {abs(100 * pair['difference']):.2f} points may be chance")
    note = f"; {pair['note']}" if pair["note"] else ""
    return (f"{both}: {verdict} (McNemar's mid-p {pair['mid_p']:.2g}, exact {pair['exact_p']:.2g}): of the same "
            f"{pair['examples']:,} {pair['split']} examples {pair['only_first']:,} only the first answers correctly, "
            f"{pair['only_second']:,} only the second{note}")


def _interval(bounds: list[float] | None) -> str:
    return "–" if bounds is None else interval(bounds)


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _whole_percent(share: float | None) -> str:
    return percent(share, 0)


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    return ",".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else str(value)
