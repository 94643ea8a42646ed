"""The training in a run: calls of the device loop, and what is told of them."""

import time

import numpy as np
import tensorflow as tf

from trainer.data.pipeline import open_feed
from trainer.distributed.stragglers import Waits
from trainer.errors import failure_of
from trainer.train.loss_monitor import LossWatch
from trainer.train.step import make_train_loop
from trainer.train.steps_per_call import Pace


class Training:
    """Trains N steps at a time.

    Args:
        config: The run's `Config`.
        runtime: The `Runtime`.
        data: The `Dataset`.
        plan: The run's `Plan`.
        state: The `TrainState`.
        progress: The `Progress`.
        reporter: The `Reporter`; None on workers that aren't the chief.
        step: Where this start begins.

    Attributes:
        step: Steps done.
        pace: The `Pace`.
        waits: The `Waits`.
        failure: What went wrong beside the training on this worker, or None; it ends all workers at their next
            agreement.
    """

    def __init__(self, config, runtime, data, plan, state, progress, reporter, step):
        self._config, self._runtime, self._data, self._plan = config, runtime, data, plan
        self._state, self._progress, self._reporter = state, progress, reporter
        self._order = data.train.order(config.seed, plan.batch_size)
        self._watch = LossWatch(config, runtime.precision, self._ids_of, progress.recent)
        self._loop = self._timed_since = None
        self.step, self.pace, self.waits, self.failure = step, Pace(), Waits(runtime), None

    @property
    def is_open(self):
        """Whether the pipelines are open and the device loop is made; its first call compiles."""
        return self._loop is not None

    def open(self):
        """Opens the pipelines and makes the device loop."""
        feed = open_feed(self._data, self._config, self._plan, self.step, self._runtime)
        self._loop = make_train_loop(self._state, self._config, self._plan, self._runtime, feed)

    def call(self, count):
        """Does `count` steps on the device, and reports them."""
        self.waits.begin()
        with self.pace.measure(count):
            records = self._loop(tf.constant(count, tf.int32))
            records = type(records)(*(part if part is None else np.asarray(part) for part in records))
        self.waits.note(records.times)
        windows = list(self._progress.absorb(records, self.step, self._plan, self._watch))
        self.step += count
        found = self._watch.take_found()
        self._report_beside(records, windows, found)
        for event in found:
            self.failure = self.failure or failure_of(lambda event=event: self._watch.require_bearable(event))
        self._count_time(count)

    def report(self, action):
        """Reports at once, on the chief, by an action that uses the reporter."""
        def after_those_before():
            self._reporter.wait()
            action()

        if self._reporter:
            self.failure = self.failure or failure_of(after_those_before)

    def finish_reports(self):
        """Waits for all reports of the steps done; raises what went wrong in them."""
        self.report(lambda: None)
        if self.failure:
            raise self.failure

    def skip_time(self):
        """Leaves out of the training's time what was done since the last call."""
        if self._timed_since is not None:
            self._timed_since = time.perf_counter()

    def _report_beside(self, records, windows, found):
        """Begins to report a call. All that it tells of is known here: the next call may begin meanwhile."""
        speed = self.pace.steps_per_second and self.pace.steps_per_second * self._plan.batch_size
        reporter, step = self._reporter, self.step
        windows = [{**record, **self.waits.shares} for record in windows]
        news = [event for event in found if self._watch.is_news(event)]

        def report():
            for record in windows:
                reporter.train(record, speed)
            if self._config.ledger:
                reporter.ledger(step - len(records.loss), records.ids)
            reporter.progress(step, self._plan.epoch(step), speed)
            for event in news:
                reporter.event(event)

        if reporter:
            self.failure = self.failure or failure_of(lambda: reporter.begin(report))

    def _ids_of(self, step):
        """The examples of a step, in the order of the global batch."""
        first, size = (step - 1) * self._plan.batch_size, self._plan.batch_size
        return self._order.stream(first, first + size)[0].tolist()

    def _count_time(self, steps):
        """Counts the time of a call and of all that was done for it on the host; the first call only compiles."""
        now = time.perf_counter()
        if self._timed_since is not None:
            self._progress.images += steps * self._plan.batch_size
            self._progress.train_seconds += now - self._timed_since
        self._timed_since = now
