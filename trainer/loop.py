"""A run from its first step to its exports: the page to read first.

    data, plan, state ← configuration
    go on from the newest sound checkpoint, if there is one
    until the last step:
        N steps on the device           N so that a call takes about a second
        report them
        evaluate, where an epoch ends   keep the best
        save, when it is time           or when somebody wants the run to stop
    export, and measure what was exported
"""

import contextlib
import math
import time

from trainer.checkpoint.manager import Keeper
from trainer.data.augment.preview import take_samples
from trainer.data.dataset import load
from trainer.data.pipeline import on_device
from trainer.distributed import collectives
from trainer.errors import Stopped, failure_of
from trainer.plan import make_plan
from trainer.reporting.run_record import finish
from trainer.train.evaluation import Evaluator
from trainer.train.inner_loop import Training
from trainer.train.state import TrainState


def train_and_evaluate(config, runtime, model_dir, console, wish, deadline):
    """Trains as configured, going on where an earlier start stopped.

    Args:
        config: The run's `Config`.
        runtime: The `Runtime`.
        model_dir: The run's `ModelDir`, claimed.
        console: The `Console`.
        wish: The `StopWish`.
        deadline: The `Deadline`.

    Returns:
        What result.json holds; None on workers that aren't the chief.

    Raises:
        LockstepError: a subclass for each way to end other than well.
    """
    with deadline.phase("looking at the data"):
        data = collectives.all_do(runtime, lambda: load(config))
        collectives.require_same(runtime, {f"data: {name}": value for name, value in data.facts().items()})
        plan = collectives.all_do(runtime, lambda: make_plan(config, data.train.size, runtime.replicas))
    console.say(f"{runtime.sentence()}; {plan.sentence()}")
    console.say(data.sentence())
    _warn_of_bad(data, console)
    with deadline.phase("building the model and looking for checkpoints"):
        run = Run(config, runtime, model_dir, console, wish, deadline, data, plan)
    try:
        run.train()
        return run.finish_together()
    finally:
        run.close()


class Run:
    """One start of a run: everything that `train_and_evaluate` holds together."""

    def __init__(self, config, runtime, model_dir, console, wish, deadline, data, plan):
        self.config, self.runtime, self.model_dir = config, runtime, model_dir
        self.console, self.wish, self.deadline, self.data, self.plan = console, wish, deadline, data, plan
        self.state = TrainState(config, plan, runtime, len(data.classes), data.image_shape)
        self.keeper = Keeper(config, runtime, model_dir, console, data, plan, self.state)
        self.progress, self.reporter = self.keeper.progress, self.keeper.reporter
        self.training = Training(config, runtime, data, plan, self.state, self.progress, self.reporter,
                                 self.keeper.saved_at)
        self.evaluate = Evaluator(self.state.model, data.test, plan.rows, runtime)
        self.known_bad = data.bad.here  # all workers know of what was bad from the start

    @property
    def step(self):
        """Steps done."""
        return self.training.step

    def train(self):
        """Trains and evaluates until the last step, or until the run ends early."""
        if not self._done():
            self.console.start(self.step, self.plan.total_steps)
        while True:
            stop, count, save = self._agree()
            if stop:
                self._stop()
            if self._evaluation_due():
                self._evaluate()
                continue
            if save or self._done():
                self._save()
            if self._done():
                break
            if self.training.is_open:
                self.training.call(count)
                continue
            if self.step == 0:
                self._introduce()
            self.training.open()
            with self._compiling():
                self.training.call(count)
        with self.deadline.phase("waiting for the last save"):
            collectives.all_do(self.runtime, self.training.finish_reports)
            self.console.stop()
            collectives.all_do(self.runtime, self.keeper.wait)

    def _agree(self):
        """(whether to stop, how many steps come next, whether to save): the same on all workers.

        Raises:
            LockstepError: on all workers, if something failed on one.
        """
        save = self.keeper.due(self.step)
        count = min(self.training.pace.steps, max(1, self.plan.next_stop(self.step) - self.step))
        wished = 1 if self.wish.signal else 0
        failure = failure_of(self._check)
        bad = self.data.bad.here - self.known_bad
        stop, count, save, failed, all_bad, *own = collectives.agree(
            self.runtime, [wished, *([count, int(save)] if self.runtime.is_chief else [0, 0]),
                           int(failure is not None), bad, *self.training.waits.mine()])
        self.data.bad.elsewhere = all_bad - bad
        if failed:
            collectives.raise_any(self.runtime, failure)
        _warn_of_bad(self.data, self.console)
        self.deadline.progress()
        slow = self.training.waits.take(own)
        if slow and self.reporter:
            self.console.warn(slow)
        return stop, count, save

    def _check(self):
        """Raises what went wrong beside the training: in a report, in a save, or in reading the data."""
        if self.training.failure:
            raise self.training.failure
        self.keeper.check()
        self.data.bad.check()

    def _introduce(self):
        """Tells in TensorBoard what a run is, before its first step."""
        self.training.report(lambda: self.reporter.settings(self.config))
        self.training.report(lambda: self.reporter.samples(self._samples()))

    def _samples(self):
        return take_samples(self.data, self.config, self.plan.batch_size,
                            on_device(self.config.augment, self.data.train))

    @contextlib.contextmanager
    def _compiling(self):
        """Around what compiles, which may take longer than who wants the run to stop may wait."""
        self._save()
        with self.deadline.phase("compiling"), self.nothing_to_save("compiling"):
            yield

    def _evaluation_due(self):
        evaluated = self.progress.evaluation and self.progress.evaluation["step"]
        # A run that ends elsewhere than planned (resumed with fewer steps, say) is evaluated where it ends.
        return (self.plan.evaluates_at(self.step) or self._done()) and evaluated != self.step

    def _evaluate(self):
        began = time.monotonic()
        with contextlib.nullcontext() if self.evaluate.compiled else self._compiling():
            evaluation = self.evaluate(self._wanted_back)
        if not evaluation:
            self._stop()
        seconds = time.monotonic() - began
        record, is_best = self.progress.note_evaluation(self.step, evaluation, self.plan)
        record["learning_rate"] = float(self.state.optimizer.learning_rate)
        record["images_per_second"] = round(evaluation.examples / seconds, 1)
        self.training.report(lambda: self.reporter.evaluation(record, is_best))
        if self.keeper.saved_at == self.step:
            self.keeper.amend(self.step)
        elif is_best:
            self._save()
        self.training.skip_time()

    def _wanted_back(self):
        (wishes,) = collectives.agree(self.runtime, [int(bool(self.wish.signal))])
        self.deadline.progress("evaluating")
        return wishes > 0

    def _done(self):
        return self.step >= self.plan.total_steps or self.progress.ended_early(self.config, self.step) is not None

    def nothing_to_save(self, doing):
        """Around what may be cut short by a signal; see `StopWish`."""
        return self.wish.nothing_to_save(doing, self.keeper.settled)

    def _save(self):
        """Begins to save what isn't saved yet, once the save before is through."""
        if self.keeper.saved_at != self.step:
            with self.deadline.phase("saving"):
                collectives.require_equal_states(self.runtime, self.state)
                self.keeper.save(self.step)

    def _stop(self):
        self.wish.end()  # what follows is short, and shall not be cut short
        with self.deadline.phase("saving"):
            collectives.require_equal_states(self.runtime, self.state)
            collectives.all_do(self.runtime, self._save_all)
            collectives.part(self.runtime)
        why = self.wish.signal or "another worker was"
        raise Stopped(f"asked to stop ({why}); step {self.step:,} is saved in {self.model_dir.checkpoints}",
                      "run the same command again; it goes on from there")

    def _save_all(self):
        self.training.finish_reports()
        self.keeper.wait()
        if self.keeper.saved_at != self.step or self.keeper.is_empty():
            self.keeper.save(self.step)
            self.keeper.wait()

    def finish_together(self):
        """Lets the chief finish the run while the other workers wait for it.

        Returns:
            What result.json holds; None on workers that aren't the chief.
        """
        def finish_alone():
            return finish(self, self._samples) if self.runtime.is_chief else None

        if self.runtime.is_chief:
            patience, waiting = self.deadline.LONGER, contextlib.nullcontext()
        else:  # the chief has a deadline of its own, and TensorFlow tells when it is gone
            patience, waiting = math.inf, self.nothing_to_save("waiting for the exports")
        with self.deadline.phase("exporting", patience), waiting:
            result = collectives.all_do(self.runtime, finish_alone)
            collectives.part(self.runtime)
        return result

    def close(self):
        """Ends all output of the run."""
        self.console.stop()
        self.keeper.close()


def _warn_of_bad(data, console):
    """Names what turned out not to be of use; the first few of a start."""
    for line in data.bad.news():
        console.warn(f"left out: {line}")
