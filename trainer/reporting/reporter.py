"""Takes what the loop measured to everybody who wants to know."""

import time

from trainer.reporting import curves
from trainer.reporting.metrics import MetricsFile
from trainer.reporting.tensorboard import TensorBoardWriter


class Reporter:
    """Writes metrics.jsonl, TensorBoard and the progress line.

    Args:
        model_dir: The run's `ModelDir`.
        console: The `Console`.
        valid: What `settle` returned when the checkpoint was made that the run goes on from; None for a
            new run.
        first_step: Where this start begins.
        total_steps: Where the run ends.
    """

    def __init__(self, model_dir, console, valid, first_step, total_steps):
        valid = valid or {"metrics": 0, "tensorboard": {}}
        self._metrics = MetricsFile(model_dir.metrics, valid["metrics"])
        self._tensorboard = TensorBoardWriter(model_dir.tensorboard, valid["tensorboard"])
        self._model_dir, self._console = model_dir, console
        self._first_step, self._total_steps = first_step, total_steps
        self._began = time.monotonic()
        self._last = {}

    def train(self, record, images_per_second):
        """Reports a window of training steps.

        Args:
            record: As `Progress.absorb` yields it.
            images_per_second: Training speed, or None if it isn't known.
        """
        record = {**record, "images_per_second": images_per_second and round(images_per_second, 1)}
        self._metrics.write("train", record)
        self._tensorboard.write("train", record["step"], {name: record[name] for name in (
            "loss", "accuracy", "learning_rate", "images_per_second", "skipped_steps")})
        self._last = record

    def evaluation(self, record, is_best):
        """Reports an evaluation.

        Args:
            record: As `Progress.note_evaluation` returns it, with images_per_second.
            is_best: Whether it is the best one so far.
        """
        self._metrics.write("eval", record)
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

    def settle(self):
        """Hands all that was reported to the operating system.

        Returns:
            (how far the files are valid, a JSON object for the checkpoint's manifest; the files, to be made
            durable before it counts).
        """
        events = self._tensorboard.settle()
        return ({"metrics": self._metrics.settle(), "tensorboard": events},
                [self._model_dir.metrics, *(self._model_dir.tensorboard / name for name in events)])

    def draw(self):
        """Draws the report's pictures from metrics.jsonl."""
        curves.draw(self._model_dir.metrics, self._model_dir.report / "curves.png")

    def close(self):
        """Closes all files."""
        self._metrics.close()
        self._tensorboard.close()
