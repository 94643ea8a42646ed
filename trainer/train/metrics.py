"""What the host knows about a run between steps: sums for the metrics, the best evaluation, the time of training.

Every checkpoint's manifest holds it, so a resumed run writes the same metrics as a run that was never interrupted.
Sums are over steps in their order, so they don't depend on where the calls of the device loop begin and end.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.plan import Plan
    from trainer.train.evaluation import Evaluation
    from trainer.train.loss_monitor import LossMonitor
    from trainer.train.step.train_loop import StepRecords

_MOST_EVENTS = 20  # of a window; later events are counted, but not kept
# Attributes that have another name in a manifest.
_NAMES = {"evals_since_best": "stale", "skipped_in_a_row": "bad_in_row", "excused_in_a_row": "excused_in_row"}
_ATTRIBUTES = {name: attribute for attribute, name in _NAMES.items()}


@dataclasses.dataclass
class MetricSums:
    """Training metrics over a stretch of steps.

    Args:
        skipped: Number of steps whose update was not applied.
        counted: Number of steps whose loss was finite; the next three sums are over these steps.
        loss: Sum of the mean losses over the batches.
        correct: Number of correct predictions.
        examples: Number of examples.
        bad_records: Number of examples that could not be read.
        spikes: Number of losses that were far over the running median.
        normed: Number of steps that were applied and whose gradients' norm is known; the next sum is over these steps.
        gradient_norm: Sum of the norms.
        events: The first 20 events (spikes and skipped steps), as `LossMonitor.check` returns them.
    """

    skipped: int = 0
    counted: int = 0
    loss: float = 0.0
    correct: float = 0.0
    examples: int = 0
    bad_records: int = 0
    spikes: int = 0
    normed: int = 0
    gradient_norm: float = 0.0
    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, loss: float, correct: float, applied: bool, examples: int, batch_size: int,
            gradient_norm: float | None) -> None:
        """Adds a step.

        Args:
            loss: The mean loss over its batch.
            correct: Number of correct predictions.
            applied: Whether its update was applied.
            examples: Number of its examples that could be read.
            batch_size: Number of its examples.
            gradient_norm: The norm of its gradients before clipping; None if it isn't known.
        """
        self.skipped += not applied
        self.bad_records += batch_size - examples
        if math.isfinite(loss):
            self.counted += 1
            self.loss += loss
            self.correct += correct
            self.examples += examples
        if applied and gradient_norm is not None:
            self.normed += 1
            self.gradient_norm += gradient_norm

    def note(self, event: dict[str, Any]) -> None:
        """Counts an event, and keeps it if it is one of the first 20."""
        self.spikes += event["event"] == "spike"
        if len(self.events) < _MOST_EVENTS:
            self.events.append(event)

    def means(self) -> dict[str, float | None]:
        """loss and accuracy over the stretch; both are None if no step in it had a finite loss."""
        if not self.counted:
            return {"loss": None, "accuracy": None}
        return {"loss": self.loss / self.counted, "accuracy": self.correct / self.examples}


@dataclasses.dataclass
class RunMetrics:
    """The metrics and counters of a run so far.

    Args:
        window: The sums since the last line of training metrics.
        period: The sums since the last evaluation.
        evaluation: The last evaluation: step, loss, accuracy, class_accuracy; None before the first.
        best: The best evaluation, in the same form; None before the first.
        evals_since_best: Number of evaluations since the best one.
        skipped_in_a_row: Number of steps since the last one whose update was applied.
        excused_in_a_row: How many of those had a finite loss and a loss scale that could still be lowered.
        recent: The losses of the `LossMonitor`'s running median.
        images: Number of training examples in `train_seconds`, for the mean speed.
        train_seconds: Time of training, reporting and saving; not of evaluation, nor of each start's first call,
            which compiles.
        input_seconds: For how much of it steps waited for batches; 0 where that isn't known.
        wall_seconds: Time of the run, over all starts.
        out_of_time: The step at which `--max_hours` were over, and how many they were: step, hours; None before.
    """

    window: MetricSums = dataclasses.field(default_factory=MetricSums)
    period: MetricSums = dataclasses.field(default_factory=MetricSums)
    evaluation: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    evals_since_best: int = 0
    skipped_in_a_row: int = 0
    excused_in_a_row: int = 0
    recent: list[float] = dataclasses.field(default_factory=list)
    images: int = 0
    train_seconds: float = 0.0
    input_seconds: float = 0.0
    wall_seconds: float = 0.0
    out_of_time: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunMetrics:
        """The inverse of `to_json`.

        Args:
            values: What `to_json` returned.
        """
        named = {_ATTRIBUTES.get(name, name): value for name, value in values.items()}
        return cls(**{**named, "window": MetricSums(**named["window"]), "period": MetricSums(**named["period"])})

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint's manifest holds: a dict with the names of format 1."""
        return {_NAMES.get(name, name): value for name, value in dataclasses.asdict(self).items()}

    @property
    def images_per_second(self) -> float | None:
        """The mean training speed of the run so far; None if it isn't known yet."""
        return self.images / self.train_seconds if self.train_seconds else None

    def update(self, records: StepRecords, first_step: int, plan: Plan,
               monitor: LossMonitor) -> Iterator[dict[str, Any]]:
        """Adds the steps of a call of the device loop.

        Args:
            records: What the steps did, as NumPy arrays.
            first_step: Steps done before the call.
            plan: The run's plan.
            monitor: Checks each step's loss.

        Yields:
            For each window that ends in the call a dict with step, epoch, loss, accuracy, learning_rate,
            skipped_steps, loss_spikes, bad_records and, if they are known, gradient_norm, the mean of the steps that
            were applied, and if there were any, events.
        """
        norms = [None] * len(records.loss) if records.gradient_norm is None else records.gradient_norm.tolist()
        for step, (loss, correct, rate, applied, examples, scale, norm) in enumerate(
                zip(*records[:6], norms, strict=True), first_step + 1):
            for sums in (self.window, self.period):
                sums.add(float(loss), float(correct), bool(applied), int(examples), plan.batch_size, norm)
            self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1
            self.excused_in_a_row = 0 if applied else self.excused_in_a_row + int(scale > 1 and math.isfinite(loss))
            if event := monitor.check(step, float(loss), self.skipped_in_a_row, self.excused_in_a_row):
                self.window.note(event)
            if plan.logs_at(step):
                yield self._line(step, float(rate), plan)
                self.window = MetricSums()
        self.recent = monitor.recent

    def _line(self, step: int, learning_rate: float, plan: Plan) -> dict[str, Any]:
        """The training metrics of the window that ends at a step."""
        window = self.window
        return {"step": step, "epoch": plan.epoch(step), **window.means(), "learning_rate": learning_rate,
                "skipped_steps": window.skipped, "loss_spikes": window.spikes, "bad_records": window.bad_records,
                **({"gradient_norm": window.gradient_norm / window.normed} if window.normed else {}),
                **({"events": window.events} if window.events else {})}

    def note_evaluation(self, step: int, evaluation: Evaluation, plan: Plan) -> tuple[dict[str, Any], bool]:
        """Adds an evaluation.

        Args:
            step: Steps done.
            evaluation: The result of the evaluation.
            plan: The run's plan.

        Returns:
            (a dict for metrics.jsonl, with step, epoch, loss, accuracy, examples, and the means of training since the
            last evaluation, train_loss and train_accuracy; whether this is the best evaluation so far).
        """
        self.evaluation = {"step": step, "loss": evaluation.loss, "accuracy": evaluation.accuracy,
                           "class_accuracy": list(evaluation.class_accuracy)}
        means = self.period.means()
        self.period = MetricSums()
        is_best = self.best is None or evaluation.accuracy > self.best["accuracy"]
        if is_best:
            self.best, self.evals_since_best = self.evaluation, 0
        else:
            self.evals_since_best += 1
        return {"step": step, "epoch": plan.epoch(step), "loss": evaluation.loss, "accuracy": evaluation.accuracy,
                "examples": evaluation.examples, "train_loss": means["loss"], "train_accuracy": means["accuracy"]
                }, is_best

    def note_out_of_time(self, step: int, config: Config) -> None:
        """Notes that the time which a run may take is over.

        Args:
            step: Steps done.
            config: The run's settings.
        """
        self.out_of_time = {"step": step, "hours": config.max_hours}

    def ended_early(self, config: Config, step: int, evaluated: str) -> str | None:
        """Why the run ends at a step before its last one, in a few words; None if it doesn't.

        Args:
            config: The run's settings.
            step: Steps done.
            evaluated: The name of the evaluated split.
        """
        over = self.out_of_time
        if over and config.max_hours and over["step"] == step and over["hours"] >= config.max_hours:
            return f"--max_hours={config.max_hours:g} were over"
        if not self.evaluation or self.evaluation["step"] != step:
            return None  # settings may have changed since: the next evaluation decides
        if config.target_accuracy and self.evaluation["accuracy"] >= config.target_accuracy:
            return f"the {evaluated} accuracy reached --target_accuracy={config.target_accuracy:g}"
        if config.patience and self.evals_since_best >= config.patience:
            return (f"no better {evaluated} accuracy in {self.evals_since_best} evaluations "
                    f"(--patience={config.patience})")
        return None
