"""What the host knows about a run between steps: sums for the metrics, the best so far, time spent.

It goes into every checkpoint's manifest, so a resumed run writes the same metrics as one that nothing
disturbed. Sums are over steps in their order, so where the device loop's calls begin and end doesn't
matter to them.
"""

import dataclasses
import math

_MOST_EVENTS = 20  # a window; the counts go on
# Attributes that have another name in a manifest.
_NAMES = {"evals_since_best": "stale", "skipped_in_a_row": "bad_in_row", "excused_in_a_row": "excused_in_row"}
_ATTRIBUTES = {name: attribute for attribute, name in _NAMES.items()}


@dataclasses.dataclass
class MetricSums:
    """Training metrics over a stretch of steps.

    Args:
        skipped: Steps whose update was not applied.
        counted: Steps whose loss was finite.
        loss: Sum over those of the batch's mean loss.
        correct: Sum over those of the number of right answers.
        examples: Sum over those of the number of examples.
        bad_records: Examples that could not be read.
        spikes: How many of the losses were far over their median.
        events: The first 20 of those steps and of the skipped ones, as `LossMonitor` describes them.
    """

    skipped: int = 0
    counted: int = 0
    loss: float = 0.0
    correct: float = 0.0
    examples: int = 0
    bad_records: int = 0
    spikes: int = 0
    events: list = dataclasses.field(default_factory=list)

    def add(self, loss, correct, applied, examples, batch_size):
        """Counts a step in."""
        self.skipped += not applied
        self.bad_records += batch_size - examples
        if math.isfinite(loss):
            self.counted += 1
            self.loss += loss
            self.correct += correct
            self.examples += examples

    def note(self, event):
        """Keeps what was found in a step."""
        self.spikes += event["event"] == "spike"
        if len(self.events) < _MOST_EVENTS:
            self.events.append(event)

    def means(self):
        """loss and accuracy over the stretch; None each if no step in it had a finite loss."""
        if not self.counted:
            return {"loss": None, "accuracy": None}
        return {"loss": self.loss / self.counted, "accuracy": self.correct / self.examples}


@dataclasses.dataclass
class RunMetrics:
    """The metrics and counters of a run so far.

    Args:
        window: Since the last line of training metrics.
        period: Since the last evaluation.
        evaluation: The last one: step, loss, accuracy; None before the first.
        best: The best one, likewise.
        skipped_in_a_row: Steps since the last one whose update was applied.
        excused_in_a_row: How many of them had a finite loss and a loss scale that could still come down.
        recent: What the `LossMonitor` must remember.
        evals_since_best: Evaluations since the best one.
        images: Training examples in `train_seconds`, for the mean speed.
        train_seconds: Time of training, reporting and saving; not of evaluation, nor of each start's first call,
            which compiles.
        wall_seconds: Time in all, over all starts.
    """

    window: MetricSums = dataclasses.field(default_factory=MetricSums)
    period: MetricSums = dataclasses.field(default_factory=MetricSums)
    evaluation: dict | None = None
    best: dict | None = None
    evals_since_best: int = 0
    skipped_in_a_row: int = 0
    excused_in_a_row: int = 0
    recent: list = dataclasses.field(default_factory=list)
    images: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0

    @classmethod
    def from_json(cls, values):
        """The inverse of `to_json`."""
        named = {_ATTRIBUTES.get(name, name): value for name, value in values.items()}
        return cls(**{**named, "window": MetricSums(**named["window"]), "period": MetricSums(**named["period"])})

    def to_json(self):
        """What a checkpoint's manifest holds: a dict under the names of format 1."""
        return {_NAMES.get(name, name): value for name, value in dataclasses.asdict(self).items()}

    @property
    def images_per_second(self):
        """The mean training speed of the run so far, or None."""
        return self.images / self.train_seconds if self.train_seconds else None

    def update(self, records, first_step, plan, monitor):
        """Counts the steps of a call of the device loop in.

        Args:
            records: The `StepRecords`, as NumPy arrays.
            first_step: Steps done before them.
            plan: The run's `Plan`.
            monitor: The run's `LossMonitor`.

        Yields:
            For each window that ends in them a dict with step, epoch, loss, accuracy, learning_rate,
            skipped_steps, loss_spikes and, if there were any, events.
        """
        for number, (loss, correct, rate, applied, examples, scale) in enumerate(zip(*records[:6], strict=True)):
            step = first_step + number + 1
            for sums in (self.window, self.period):
                sums.add(float(loss), float(correct), bool(applied), int(examples), plan.batch_size)
            self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1
            self.excused_in_a_row = 0 if applied else self.excused_in_a_row + int(scale > 1 and math.isfinite(loss))
            if event := monitor.check(step, float(loss), self.skipped_in_a_row, self.excused_in_a_row):
                self.window.note(event)
            if plan.logs_at(step):
                yield self._line(step, float(rate), plan)
                self.window = MetricSums()
        self.recent = monitor.recent

    def _line(self, step, learning_rate, plan):
        window = self.window
        return {"step": step, "epoch": plan.epoch(step), **window.means(), "learning_rate": learning_rate,
                "skipped_steps": window.skipped, "loss_spikes": window.spikes, "bad_records": window.bad_records,
                **({"events": window.events} if window.events else {})}

    def note_evaluation(self, step, evaluation, plan):
        """Remembers an evaluation.

        Args:
            step: When.
            evaluation: The `Evaluation`.
            plan: The run's `Plan`.

        Returns:
            (a dict as `update` yields it, with the training means since the last evaluation beside it;
            whether this is the best evaluation so far).
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

    def ended_early(self, config, step):
        """Why the run ends at a step before its last one, in a few words; None if it doesn't."""
        if not self.evaluation or self.evaluation["step"] != step:
            return None  # settings may have changed since: the next evaluation decides
        if config.target_accuracy and self.evaluation["accuracy"] >= config.target_accuracy:
            return f"the test accuracy reached --target_accuracy={config.target_accuracy:g}"
        if config.patience and self.evals_since_best >= config.patience:
            return f"no better test accuracy in {self.evals_since_best} evaluations (--patience={config.patience})"
        return None
