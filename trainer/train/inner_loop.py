"""The inner loop: calls of the device loop, each of about a second, and what the host counts of them."""

import dataclasses
import time

import numpy as np

from trainer.data.pipeline import open_feed
from trainer.distributed.stragglers import StragglerMonitor
from trainer.process.tf_import import tf
from trainer.train.loss_monitor import LossMonitor
from trainer.train.step import make_train_loop
from trainer.train.steps_per_call import CallTimer


@dataclasses.dataclass(frozen=True)
class CallReport:
    """What there is to report of a call.

    Args:
        step: Steps done after it.
        epoch: Epochs done after it.
        windows: For each window of training metrics that ended in it, a dict for metrics.jsonl.
        events: What users should hear of its steps, as `LossMonitor.check` returns it.
        ids: int64 [n, batch], the examples of its steps; None without --ledger.
        images_per_second: The speed of training, or None if it isn't known yet.
    """

    step: int
    epoch: float
    windows: list[dict]
    events: list[dict]
    ids: np.ndarray | None
    images_per_second: float | None


class InnerLoop:
    """Trains N steps at a time.

    Args:
        job: The `Job`.
        state: The `TrainState`.
        metrics: The `RunMetrics`.
        step: Where this start begins.
        failures: The `FirstFailure` that hears of a run that diverges.

    Attributes:
        step: Steps done.
        timer: The `CallTimer`.
        stragglers: The `StragglerMonitor`.
    """

    def __init__(self, job, state, metrics, *, step, failures):
        self._job, self._state, self._metrics, self._failures = job, state, metrics, failures
        self._order = job.data.train.order(job.config.seed, job.plan.batch_size)
        self._monitor = LossMonitor(job.config, job.runtime.precision, self._ids_of, metrics.recent)
        self._loop = self._timed_since = None
        self.step, self.timer, self.stragglers = step, CallTimer(), StragglerMonitor(job.runtime)

    @property
    def is_compiled(self):
        """Whether the pipelines are open and the device loop is made; its first call compiles."""
        return self._loop is not None

    def compile(self):
        """Opens the pipelines and makes the device loop."""
        self._loop = make_train_loop(self._job, self._state, open_feed(self._job, first_step=self.step))

    def run(self, num_steps):
        """Does some steps on the device.

        Args:
            num_steps: How many.

        Returns:
            A `CallReport`.
        """
        self.stragglers.begin()
        with self.timer.measure(num_steps):
            records = self._loop(tf.constant(num_steps, tf.int32))
            records = type(records)(*(part if part is None else np.asarray(part) for part in records))
        self.stragglers.note(records.times)
        windows = list(self._metrics.update(records, self.step, self._job.plan, self._monitor))
        self.step += num_steps
        events = self._monitor.pop_events()
        for event in events:
            with self._failures:
                self._monitor.raise_if_diverged(event)
        self._count_time(num_steps)
        speed = self.timer.steps_per_second and self.timer.steps_per_second * self._job.plan.batch_size
        return CallReport(self.step, self._job.plan.epoch(self.step),
                          [{**record, **self.stragglers.shares} for record in windows],
                          [event for event in events if self._monitor.should_report(event)], records.ids, speed)

    def skip_time(self):
        """Leaves out of the training's time what was done since the last call."""
        if self._timed_since is not None:
            self._timed_since = time.perf_counter()

    def _ids_of(self, step):
        """The examples of a step, in the order of the global batch."""
        first, size = (step - 1) * self._job.plan.batch_size, self._job.plan.batch_size
        return self._order.stream(first, first + size)[0].tolist()

    def _count_time(self, num_steps):
        """Counts the time of a call and of all that was done for it on the host; the first call only compiles."""
        now = time.perf_counter()
        if self._timed_since is not None:
            self._metrics.images += num_steps * self._job.plan.batch_size
            self._metrics.train_seconds += now - self._timed_since
        self._timed_since = now
