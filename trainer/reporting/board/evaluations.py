"""What TensorBoard shows of an evaluation: figures and a table of the classes always, drawings where they are cheap."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from trainer.data.augment.preview import take_images
from trainer.quality.figures import figures_of
from trainer.reporting.board.drawings import MISTAKES, mistakes_sheet, reliability_diagram
from trainer.reporting.board.tables import class_table
from trainer.reporting.page.confusion_plot import confusion_image
from trainer.reporting.page.report import worst_mistakes

if TYPE_CHECKING:
    from PIL import Image

    from trainer.data.split import Split
    from trainer.quality.predictions import Predictions
    from trainer.reporting.board.own_metrics import OwnMetrics
    from trainer.reporting.console import Console
    from trainer.reporting.tensorboard import TensorBoardWriter

_Made = TypeVar("_Made")
_FIGURES = ("top5_accuracy", "macro_f1", "ece")
_MOST_TIME = 0.01  # of the time between evaluations, for drawings
_FIRST_GUESS = 0.5  # seconds: the first drawing imports and reads fonts


class EvaluationBoard:
    """Shows evaluations; for a thread beside the training.

    The last evaluation is drawn, and the best of this start; each other one only where drawing takes under 1 % of the
    time since the one before. What can't be shown is left out, with a warning: no run ends for that.

    Args:
        events: Where it is written.
        split: The evaluated split.
        console: Takes the warning.
        metrics: Figures of the user's own, or None.
    """

    def __init__(self, events: TensorBoardWriter, split: Split, console: Console,
                 metrics: OwnMetrics | None = None) -> None:
        self._events, self._split, self._console, self._metrics = events, split, console, metrics
        self._seconds, self._before = _FIRST_GUESS, time.monotonic()
        self._best: Predictions | None = None  # of the best evaluation, as long as it isn't drawn
        self._warned = False

    def show(self, predictions: Predictions, is_best: bool, is_last: bool) -> None:
        """Shows an evaluation.

        Args:
            predictions: What the model said.
            is_best: Whether the evaluation is the best so far.
            is_last: Whether the run ends with it.
        """
        scalars, table = self._guarded(_figures, predictions) or ({}, "")
        if self._metrics:
            scalars |= {f"quality/{name.rpartition(':')[2]}": value
                        for name, value in self._metrics.of(predictions).items()}
        self._events.write("eval", predictions.step, scalars)
        self._events.write_text("eval", predictions.step, {"quality/classes": table})
        before, self._before = self._before, time.monotonic()
        draws = is_last or self._seconds < _MOST_TIME * (self._before - before)
        if is_best:
            self._best = None if draws else dataclasses.replace(predictions, probabilities=None)
        if is_last and self._best:  # before the last: TensorBoard drops what it has read of later steps
            self._draw(self._best)
        if draws:
            self._draw(predictions)

    def _draw(self, predictions: Predictions) -> None:
        began = time.monotonic()
        self._events.write_drawings("eval", predictions.step, self._guarded(self._drawings, predictions) or {})
        self._seconds = time.monotonic() - began

    def _drawings(self, predictions: Predictions) -> dict[str, Image.Image]:
        quality, rows = figures_of(predictions), worst_mistakes(predictions)[:MISTAKES]
        drawings = {"quality/reliability": reliability_diagram(quality["reliability"])}
        if "confusion" in quality:
            drawings["quality/confusion"] = confusion_image(quality)
        if len(rows):
            images = take_images(self._split, predictions.ids[rows])
            drawings["quality/mistakes"] = mistakes_sheet(predictions, rows.tolist(), images)
        return drawings

    def _guarded(self, make: Callable[[Predictions], _Made], predictions: Predictions) -> _Made | None:
        """What a function makes of predictions; None, and a warning, if it fails."""
        try:
            return make(predictions)
        except Exception as error:  # whatever it is, the training goes on
            if not self._warned:
                self._console.warn(f"TensorBoard doesn't show all of the evaluation of step {predictions.step:,} "
                                   f"({type(error).__name__}: {error})")
            self._warned = True
            return None


def _figures(predictions: Predictions) -> tuple[dict[str, float | None], str]:
    """(tag to figure, the table of the classes)."""
    quality = figures_of(predictions)
    return {f"quality/{name}": quality.get(name) for name in _FIGURES}, class_table(quality)
