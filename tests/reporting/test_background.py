"""Reports are written beside the training: in their order, with errors that are heard, and nothing waits for them."""

import dataclasses
import os
import threading

import pytest

from trainer.errors import FirstFailure, StorageError
from trainer.reporting import jsonl
from trainer.reporting.background import Background
from trainer.reporting.board.speed import Speedometer
from trainer.reporting.console import Console
from trainer.reporting.reporter import Reporter
from trainer.storage.model_dir import ModelDir
from trainer.train.inner_loop import InnerLoop
from trainer.train.metrics import RunMetrics


def test_actions_are_done_in_their_order_by_a_thread_of_their_own():
    background, done = Background(), []
    for number in range(50):
        background.begin(lambda number: done.append((number, threading.current_thread().name)), number)
    background.wait()
    assert [number for number, _ in done] == list(range(50))
    assert {name for _, name in done} == {"reports_0"}


def test_an_error_is_raised_by_what_comes_next():
    background = Background()
    background.begin(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        background.wait()
    background.wait()
    background.begin(lambda: 1 / 0)
    background.close()  # whatever happened, it comes back


@dataclasses.dataclass
class Trained:
    """An `InnerLoop` and the `Reporter` of its calls."""

    inner_loop: InnerLoop
    reporter: Reporter

    def run(self, num_steps):
        self.reporter.begin(self.inner_loop.run(num_steps))


@pytest.fixture
def training(trainable, tmp_path):
    """(a `Trained` whose reporter waits for an event before it writes, the event, its folder)."""
    made, may_write = trainable(1, model="small_models:smooth", log_every_steps=1, ledger=True), threading.Event()
    model_dir = ModelDir(tmp_path)

    class Waiting(Reporter):
        def train(self, record, speed):
            assert may_write.wait(60)
            super().train(record, speed)

    reporter = Waiting(model_dir, Console(quiet=True), valid=None, first_step=0, total_steps=made.plan.total_steps,
                       ledger=True, evaluated=made.data.test, evaluated_name="test",
                       speed=Speedometer(made.job, made.state.model))
    inner_loop = InnerLoop(made.job, made.state, RunMetrics(), step=0, failures=FirstFailure())
    inner_loop.compile()
    yield Trained(inner_loop, reporter), may_write, model_dir
    may_write.set()
    reporter.close()


def test_the_next_call_does_not_wait_for_what_is_written_of_the_last(training):
    training, may_write, model_dir = training
    training.run(2)
    training.run(3)
    assert training.inner_loop.step == 5 and not jsonl.read(model_dir.metrics)
    may_write.set()
    training.reporter.wait()
    assert [line["step"] for line in jsonl.read(model_dir.metrics)] == [1, 2, 3, 4, 5]


def test_what_a_save_counts_is_all_that_was_begun(training):
    training, may_write, model_dir = training
    training.run(4)
    threading.Timer(0.3, may_write.set).start()
    sizes, _ = training.reporter.flush()
    assert sizes["metrics"] == model_dir.metrics.stat().st_size > 0
    assert len(jsonl.read(model_dir.ledger)) == 4


def test_a_report_that_fails_ends_the_run(training):
    training, may_write, _ = training
    may_write.set()
    written = training.reporter._metrics._file.fileno()
    become(written, "/dev/full")
    training.run(1)
    failures = FirstFailure()
    with failures:
        training.reporter.wait()
    with pytest.raises(StorageError, match="No space left"):
        failures.check()
    become(written, "/dev/null")  # so that it can be closed


def become(descriptor, path):
    """Lets an open file of this process be another one."""
    other = os.open(path, os.O_WRONLY)
    os.dup2(other, descriptor)
    os.close(other)
