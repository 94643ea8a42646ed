"""Takes what the loop measured to everybody who wants to know."""

import dataclasses
import time

from trainer.reporting import plots
from trainer.reporting.background import Background
from trainer.reporting.jsonl import LinesFile
from trainer.reporting.tensorboard import TensorBoardWriter

_MOST_WARNINGS = 10  # a start


class Reporter:
    """Writes metrics.jsonl, ledger.jsonl, TensorBoard and the progress line.

    Args:
        model_dir: The run's `ModelDir`.
        console: The `Console`.
        valid: What `flush` returned when the checkpoint was made that the run goes on from; None for a
            new run.
        first_step: Where this start begins.
        total_steps: Where the run ends.
        ledger: Whether to write ledger.jsonl.
    """

    def __init__(self, model_dir, console, *, valid, first_step, total_steps, ledger):
        valid = valid or {"metrics": 0, "tensorboard": {}, "ledger": 0}
        self._metrics = LinesFile(model_dir.metrics, valid["metrics"])
        self._ledger = LinesFile(model_dir.ledger, valid["ledger"]) if ledger else None
        self._tensorboard = TensorBoardWriter(model_dir.tensorboard, valid["tensorboard"])
        self._model_dir, self._console = model_dir, console
        self._first_step, self._total_steps = first_step, total_steps
        self._began = time.monotonic()
        self._last, self._warned = {}, 0
        self._background = Background()
        for name, missing in (("metrics.jsonl", self._metrics.missing),
                              ("ledger.jsonl", ledger and self._ledger.missing),
                              ("tensorboard/", self._tensorboard.missing)):
            if missing:
                console.warn(f"{name} has {missing:,} bytes less than when the checkpoint was made; "
                             "what it said of earlier steps is lost")

    def begin(self, call):
        """Reports a call of the device loop beside the training, after all that was begun before.

        Args:
            call: A `CallReport`.
        """
        self._background.begin(self._report, call)

    def _report(self, call):
        for record in call.windows:
            self.train(record, call.images_per_second)
        if self._ledger:
            self.ledger(call.step - len(call.ids), call.ids)
        self.progress(call.step, call.epoch, call.images_per_second)
        for event in call.events:
            self.event(event)

    def introduce(self, config, samples):
        """Shows in TensorBoard what the run is, and its first examples as they are and as training sees them.

        Args:
            config: The run's `Config`.
            samples: Its `Samples`.
        """
        self._tensorboard.write_settings(dataclasses.asdict(config))
        self._tensorboard.write_images("train", 0, {"samples/before": samples.before, "samples/after": samples.after})

    def wait(self):
        """Waits until all is reported that was begun; raises what went wrong in it."""
        self._background.wait()

    def train(self, record, images_per_second):
        """Reports a window of training steps.

        Args:
            record: As `RunMetrics.update` yields it.
            images_per_second: Training speed, or None if it isn't known.
        """
        record = {**record, "images_per_second": images_per_second and round(images_per_second, 1)}
        self._write_metrics("train", record)
        self._tensorboard.write("train", record["step"], {name: record.get(name) for name in (
            "loss", "accuracy", "learning_rate", "images_per_second", "skipped_steps", "loss_spikes", "bad_records",
            "waiting_share", "all_reduce_share")})
        self._last = record

    def evaluation(self, record, is_best):
        """Reports an evaluation.

        Args:
            record: As `RunMetrics.note_evaluation` returns it, with images_per_second.
            is_best: Whether it is the best one so far.
        """
        self.wait()  # for the steps before it
        self._write_metrics("eval", record)
        self._tensorboard.write("eval", record["step"], {name: record[name] for name in (
            "loss", "accuracy", "learning_rate", "images_per_second")})
        trained = ("" if record["train_loss"] is None else
                   f"train loss {record['train_loss']:.4f}, accuracy {record['train_accuracy']:.2%}   ")
        self._console.say(f"epoch {record['epoch']:6.2f}   {trained}test loss {record['loss']:.4f}, accuracy "
                          f"{record['accuracy']:.2%}{'   (best so far)' if is_best else ''}")

    def progress(self, step, epoch, images_per_second):
        """Moves the progress line on."""
        done = step - self._first_step
        elapsed = time.monotonic() - self._began
        left = elapsed / done * (self._total_steps - step) if done and images_per_second else None
        self._console.progress(step, self._total_steps, epoch, images_per_second, self._last.get("loss"),
                               self._last.get("accuracy"), left)

    def event(self, event):
        """Warns of a step that `LossMonitor` found, unless it warned of many already.

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
                           f"{', '.join(map(str, event['ids']))}"
                           + ("; further ones are in metrics.jsonl only" if self._warned == _MOST_WARNINGS else ""))

    def ledger(self, first_step, ids):
        """Writes which examples some steps used.

        Args:
            first_step: Steps done before them.
            ids: int64 [n, batch].
        """
        for number, used in enumerate(ids.tolist()):
            self._ledger.write({"step": first_step + number + 1, "ids": used})

    def flush(self):
        """Hands all that was reported to the operating system.

        Returns:
            (how far the files are valid, a JSON object for the checkpoint's manifest; the files, to be made
            durable before it counts).
        """
        self.wait()
        events = self._tensorboard.flush()
        paths = [self._model_dir.metrics, *(self._model_dir.tensorboard / name for name in events)]
        sizes = {"metrics": self._metrics.flush(), "tensorboard": events, "ledger": 0}
        if self._ledger:
            sizes["ledger"] = self._ledger.flush()
            paths.append(self._model_dir.ledger)
        return sizes, paths

    def draw(self, samples):
        """Draws the report's images: from metrics.jsonl, and of `Samples`."""
        plots.plot_curves(self._model_dir.metrics, self._model_dir.report / "curves.png")
        plots.plot_samples(samples, self._model_dir.report / "samples.png")

    def close(self):
        """Closes all files."""
        self._background.close()
        self._metrics.close()
        if self._ledger:
            self._ledger.close()
        self._tensorboard.close()

    def _write_metrics(self, split, record):
        self._metrics.write({"time": round(time.time(), 3), "step": record["step"], "epoch": record["epoch"],
                             "split": split, **record})
        self._metrics.flush()
