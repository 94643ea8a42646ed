"""The inner loop: calls of the device loop, each of about a second, and what the host counts of them."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.data.order import order_of
from trainer.data.pipeline import open_feed
from trainer.distributed.stragglers import StragglerMonitor
from trainer.train.loss_monitor import LossMonitor
from trainer.train.step.train_loop import StepRecords, TrainLoop
from trainer.train.steps_per_call import CallTimer
from trainer.train.timing.step_times import Seconds, StepTimes

if TYPE_CHECKING:
    from trainer.data.pipeline import Feed
    from trainer.errors import FirstFailure
    from trainer.plan import Job
    from trainer.train.metrics import RunMetrics
    from trainer.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class CallReport:
    """What is reported of a call of the device loop.

    Args:
        step: Steps done after the call.
        epoch: Epochs done after the call.
        windows: For each window of training metrics that ended in the call, a dict for metrics.jsonl.
        events: The events of its steps that a user should read, as `LossMonitor.check` returns them.
        ids: int64 [n, batch], the examples of its steps; None without --ledger.
        images_per_second: The speed of training, or None if it isn't known yet.
        seconds: Where its time went; None for a call that compiled.
        stalled: Seconds in which training waited for checkpoints since the call before.
        slow: Why an epoch that it ended was slow, as a user reads it; None if it wasn't.
    """

    step: int
    epoch: float
    windows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    ids: np.ndarray | None
    images_per_second: float | None
    seconds: Seconds | None
    stalled: float
    slow: str | None


class InnerLoop:
    """Trains N steps at a time.

    Args:
        job: What the run trains.
        state: The state that each step changes.
        metrics: The metrics that each call updates.
        step: The step at which this start begins.
        failures: Takes the error of a run that diverges.

    Attributes:
        step: Steps done.
        timer: Times the calls.
        stragglers: Finds workers that are slow.
        times: Where the time goes.
    """

    def __init__(self, job: Job, state: TrainState, metrics: RunMetrics, *, step: int, failures: FirstFailure) -> None:
        self._job, self._state, self._metrics, self._failures = job, state, metrics, failures
        self._order = order_of(job)
        self._monitor = LossMonitor(job.config, job.runtime.precision, self._ids_of, metrics.recent)
        self._feed: Feed | None = None
        self._loop: TrainLoop | None = None
        self._timed_since: float | None = None
        self.step, self.timer, self.stragglers = step, CallTimer(), StragglerMonitor(job.runtime)
        self.times = StepTimes()

    @property
    def is_compiled(self) -> bool:
        """Whether the pipelines are open and the device loop is made, for the size that images have now.

        The loop's first call compiles.
        """
        return self._loop is not None and self._loop.side == self._job.plan.train_size(self.step)

    def compile(self) -> None:
        """Opens the pipelines, if they aren't, and makes the device loop for the next step's size of images."""
        self._feed = self._feed or open_feed(self._job, first_step=self.step)
        self._loop = TrainLoop(self._job, self._state, self._feed, self._job.plan.train_size(self.step))
        self.timer.compiles_next()
        self._timed_since = None

    def run(self, num_steps: int) -> CallReport:
        """Does steps on the device; `compile` has been called before.

        Args:
            num_steps: Number of steps.

        Returns:
            The `CallReport`.
        """
        assert self._loop is not None
        self.stragglers.begin()
        began, epoch = time.perf_counter(), self._epochs_done()
        with self.timer.measure(num_steps):
            records = self._loop(num_steps)
            records = StepRecords(*(None if part is None else np.asarray(part) for part in records))
        in_call = time.perf_counter() - began
        self.stragglers.note(records.times)
        windows = list(self._metrics.update(records, self.step, self._job.plan, self._monitor))
        self.step += num_steps
        events = self._monitor.pop_events()
        for event in events:
            with self._failures:
                self._monitor.raise_if_diverged(event)
        waited = 0.0 if records.input_wait is None else float(records.input_wait.sum())
        seconds = self._count_time(num_steps, in_call, waited)
        done = self._epochs_done()
        slow = self.times.end_epoch(done, self._job.config) if done > epoch else None
        speed = self.timer.steps_per_second and self.timer.steps_per_second * self._job.plan.batch_size
        return CallReport(self.step, self._job.plan.epoch(self.step),
                          [{**record, **self.stragglers.shares} for record in windows],
                          [event for event in events if self._monitor.should_report(event)], records.ids, speed,
                          seconds, self.times.pop_stalled(), slow)

    def skip_time(self) -> None:
        """Leaves the time since the last call out of the time of training."""
        if self._timed_since is not None:
            self._timed_since = time.perf_counter()
        self.times.skip()

    def _epochs_done(self) -> int:
        return int(self._job.plan.epoch(self.step))

    def _ids_of(self, step: int) -> list[int]:
        """The ids of a step's examples, in the order of the global batch."""
        first, size = (step - 1) * self._job.plan.batch_size, self._job.plan.batch_size
        return self._order.stream(first, first + size)[0].tolist()

    def _count_time(self, num_steps: int, in_call: float, input_wait: float) -> Seconds | None:
        """Adds the time of a call, and of the work for it on the host, to the time of training.

        The first call only compiles; its time isn't added.

        Args:
            num_steps: Its steps.
            in_call: Its own seconds.
            input_wait: Those of them in which steps waited for batches.

        Returns:
            Where the time went; None if it isn't added.
        """
        now, since = time.perf_counter(), self._timed_since
        self._timed_since = now
        if since is None:
            self.times.skip()
            return None
        self._metrics.images += num_steps * self._job.plan.batch_size
        self._metrics.train_seconds += now - since
        self._metrics.input_seconds += input_wait
        return self.times.add(num_steps, now - since, in_call, self.stragglers.shares, input_wait)
