"""Writes what the loop measured to files, TensorBoard and the terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import first_few
from trainer.options import kept_values
from trainer.reporting import jsonl, plots
from trainer.reporting.background import Background
from trainer.reporting.board.evaluations import EvaluationBoard
from trainer.reporting.board.tables import settings_table
from trainer.reporting.jsonl import LinesFile
from trainer.reporting.page.confusion_plot import plot_confusion
from trainer.reporting.page.report import report_page
from trainer.reporting.tensorboard import TensorBoardWriter
from trainer.storage import durable

if TYPE_CHECKING:
    import keras

    from trainer.config import Config
    from trainer.data.augment.preview import Samples
    from trainer.data.split import Split
    from trainer.quality.predictions import Predictions
    from trainer.reporting.board.own_metrics import OwnMetrics
    from trainer.reporting.board.speed import Speedometer
    from trainer.reporting.console import Console
    from trainer.reporting.page.pictures import Picture
    from trainer.reporting.timeline.goodput import Start
    from trainer.storage.model_dir import ModelDir
    from trainer.train.inner_loop import CallReport

_MOST_WARNINGS = 10  # per start


class Reporter:
    """Writes metrics.jsonl, ledger.jsonl, TensorBoard and the progress on the terminal.

    Args:
        model_dir: The run's folder.
        console: Prints progress, evaluations and warnings.
        valid: The sizes that `flush` returned when the checkpoint was made from which the run resumes; None for
            a new run.
        first_step: The step at which this start begins.
        total_steps: The step at which the run ends.
        ledger: Whether to write ledger.jsonl. What earlier starts wrote there stays, without the steps after the
            checkpoint.
        evaluated: The evaluated split.
        evaluated_name: Its name.
        speed: Knows how fast the devices could be.
        metrics: Figures of the user's own.
    """

    def __init__(self, model_dir: ModelDir, console: Console, *, valid: Mapping[str, Any] | None, first_step: int,
                 total_steps: int, ledger: bool, evaluated: Split, evaluated_name: str,
                 speed: Speedometer, metrics: OwnMetrics | None = None) -> None:
        valid = valid or {"metrics": 0, "tensorboard": {}, "ledger": 0}
        self._metrics = LinesFile(model_dir.metrics, valid["metrics"])
        has_ledger = ledger or model_dir.ledger.exists()
        self._ledger = LinesFile(model_dir.ledger, valid["ledger"]) if has_ledger else None
        self._writes_ledger = ledger
        self._tensorboard = TensorBoardWriter(model_dir.tensorboard, valid["tensorboard"])
        self._speed = speed
        self._evaluations = EvaluationBoard(self._tensorboard, evaluated, console, metrics)
        self._model_dir, self._console, self._evaluated = model_dir, console, evaluated_name
        self._first_step, self._total_steps = first_step, total_steps
        self._began = time.monotonic()
        self._last: dict[str, Any] = {}  # the last window of training metrics
        self._warned = 0
        self._background = Background()
        for name, missing in (("metrics.jsonl", self._metrics.missing),
                              ("ledger.jsonl", self._ledger.missing if self._ledger else 0),
                              ("tensorboard/", self._tensorboard.missing)):
            if missing:
                console.warn(f"{name} has {missing:,} bytes less than when the checkpoint was made; "
                             "its lines of earlier steps are lost")

    def begin(self, call: CallReport) -> None:
        """Reports a call of the device loop beside the training, after all reports that were begun before.

        Raises:
            OSError: of an earlier report.
        """
        self._background.begin(self._report, call)

    def _report(self, call: CallReport) -> None:
        for record in call.windows:
            self.train(record, call.images_per_second)
        self._tensorboard.write("train", call.step, self._speed.figures(call))
        if self._writes_ledger:
            assert call.ids is not None  # the step returns ids with --ledger
            self.ledger(call.step - len(call.ids), call.ids)
        self.progress(call.step, call.epoch, call.images_per_second)
        if call.slow:
            self._console.say(call.slow)
        for event in call.events:
            self.event(event)

    def introduce(self, config: Config, samples: Samples, model: keras.Model) -> None:
        """Shows settings, layers and first examples, as they are and as training sees them, in TensorBoard."""
        settings = kept_values(config)
        self._tensorboard.write_settings(settings)
        self._tensorboard.write_text("train", 0, {"settings": settings_table(settings)})
        with contextlib.suppress(Exception):  # a model of the user's own may not tell its layers
            self._tensorboard.write_model(model.to_json())
        self._tensorboard.write_images("train", 0, {"samples/before": samples.before, "samples/after": samples.after})

    def wait(self) -> None:
        """Waits until all reports are written that were begun.

        Raises:
            OSError: of one of them.
        """
        self._background.wait()

    def train(self, record: Mapping[str, Any], images_per_second: float | None) -> None:
        """Reports a window of training steps.

        Args:
            record: As `RunMetrics.update` yields it.
            images_per_second: Training speed, or None if it isn't known.
        """
        record = {**record, "images_per_second": images_per_second and round(images_per_second, 1)}
        self._write_metrics("train", record)
        self._tensorboard.write("train", record["step"], {name: record.get(name) for name in (
            "loss", "accuracy", "learning_rate", "images_per_second", "skipped_steps", "loss_spikes", "bad_records",
            "waiting_share", "all_reduce_share", "gradient_norm")})
        self._last = record

    def evaluation(self, record: Mapping[str, Any], is_best: bool, weights_norm: float) -> None:
        """Reports an evaluation.

        Args:
            record: As `RunMetrics.note_evaluation` returns it, with learning_rate and images_per_second.
            is_best: Whether the evaluation is the best so far.
            weights_norm: The norm of the weights that train.
        """
        self.wait()  # for the reports of the steps before the evaluation
        self._write_metrics("eval", record)
        shown = {name: record[name] for name in ("loss", "accuracy", "learning_rate", "images_per_second")}
        self._tensorboard.write("eval", record["step"], {**shown, "health/weights_norm": weights_norm})
        train = ("" if record["train_loss"] is None else
                 f"train loss {record['train_loss']:.4f}, accuracy {record['train_accuracy']:.2%}   ")
        self._console.say(f"epoch {record['epoch']:6.2f}   {train}{self._evaluated} loss {record['loss']:.4f}, "
                          f"accuracy {record['accuracy']:.2%}{'   (best so far)' if is_best else ''}")
        self._console.evaluated(record["step"], record["accuracy"], is_best)

    def predictions(self, predictions: Predictions, path: Path | None, *, is_best: bool, is_last: bool) -> None:
        """Shows and writes predictions beside the training; they are on the disk before the next checkpoint counts.

        Args:
            predictions: What the model said of the evaluated split.
            path: Where they are kept; None if they aren't.
            is_best, is_last: As in `EvaluationBoard.show`.
        """
        if path:
            self._background.begin(predictions.write, path)
        self._background.begin(self._evaluations.show, predictions, is_best, is_last)

    def progress(self, step: int, epoch: float, images_per_second: float | None) -> None:
        """Shows the progress on the terminal.

        Args:
            step: Steps done.
            epoch: Epochs done.
            images_per_second: Training speed, or None if it isn't known yet.
        """
        done = step - self._first_step
        elapsed = time.monotonic() - self._began
        seconds_left = elapsed / done * (self._total_steps - step) if done and images_per_second else None
        self._console.progress(step, self._total_steps, epoch=epoch, images_per_second=images_per_second,
                               loss=self._last.get("loss"), accuracy=self._last.get("accuracy"),
                               seconds_left=seconds_left)

    def event(self, event: Mapping[str, Any]) -> None:
        """Warns of a step that `LossMonitor` reports; of the first 10 of a start.

        Args:
            event: As `LossMonitor.check` returns it.
        """
        self._warned += 1
        if self._warned > _MOST_WARNINGS:
            return
        loss = "not finite" if event["loss"] is None else f"{event['loss']:.4g}"
        what = ("the gradients were not finite, the update was skipped on all replicas"
                if event["event"] == "skipped" else f"over --spike_factor times its running median, "
                f"{event['median']:.4g}")
        self._console.warn(f"step {event['step']:,}: the loss was {loss}; {what}. Its examples: "
                           f"{first_few(event['ids'])} (all: metrics.jsonl)"
                           + ("; further steps like it are told there only" if self._warned == _MOST_WARNINGS else ""))

    def ledger(self, first_step: int, ids: np.ndarray) -> None:
        """Writes which examples each step used.

        Args:
            first_step: Steps done before the first of them.
            ids: int64 [steps, batch].
        """
        assert self._ledger is not None
        for step, step_ids in enumerate(ids.tolist(), first_step + 1):
            self._ledger.write({"step": step, "ids": step_ids})

    def flush(self) -> tuple[dict[str, Any], list[Path]]:
        """Hands all reports to the operating system.

        Returns:
            (the valid sizes of the files, a JSON object for the checkpoint's manifest; the files, which must be
            made durable before the checkpoint counts).

        Raises:
            OSError: of an earlier report.
        """
        self.wait()
        events = self._tensorboard.flush()
        paths = [self._model_dir.metrics, *(self._model_dir.tensorboard / name for name in events)]
        sizes = {"metrics": self._metrics.flush(), "tensorboard": events, "ledger": 0}
        if self._ledger:
            sizes["ledger"] = self._ledger.flush()
            paths.append(self._model_dir.ledger)
        return sizes, paths

    def draw(self, samples: Samples, result: Mapping[str, Any], starts: Sequence[Start],
             mistakes: Sequence[Picture]) -> None:
        """Draws the report: its plots, each a file, and the page.

        Args:
            samples: The run's first examples.
            result: What result.json holds.
            starts: The starts of the run.
            mistakes: The worst mistakes of the exported weights.
        """
        folder = self._model_dir.report
        plots.plot_curves(self._model_dir.metrics, folder / "curves.png", self._evaluated)
        plots.plot_samples(samples, folder / "samples.png")
        if "confusion" in result["quality"]:
            plot_confusion(result["quality"], folder / "confusion.png")
        durable.write_durably(folder / "report.html", report_page(
            name=self._model_dir.root.resolve().name, config=self._model_dir.read_config(), result=result,
            metrics=jsonl.read(self._model_dir.metrics), starts=starts, mistakes=mistakes, samples=samples))

    def close(self) -> None:
        """Closes all files."""
        self._background.close()
        self._metrics.close()
        if self._ledger:
            self._ledger.close()
        self._tensorboard.close()

    def _write_metrics(self, split: str, record: Mapping[str, Any]) -> None:
        self._metrics.write({"time": round(time.time(), 3), "step": record["step"], "epoch": record["epoch"],
                             "split": split, **record})
        self._metrics.flush()
