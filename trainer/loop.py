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
import dataclasses
import json
import math
import time

from trainer.checkpoint.checkpoints import Checkpoints
from trainer.checkpoint.manager import CheckpointManager
from trainer.data.augment.preview import take_samples
from trainer.data.dataset import load
from trainer.data.pipeline import on_device
from trainer.distributed import collectives
from trainer.distributed.agreement import Decision, agree
from trainer.distributed.devices.autotune import AutotuneFile
from trainer.errors import Stopped, catching
from trainer.plan import make_plan
from trainer.process.tf_import import tf
from trainer.reporting.reporter import Reporter
from trainer.reporting.run_record import finish, resolved
from trainer.train.evaluation import Evaluator
from trainer.train.inner_loop import Training
from trainer.train.resume import resume
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
    with deadline.phase("reading the data"):
        with collectives.all_or_none(runtime):
            data = load(config)
        collectives.require_same(runtime, {f"data: {name}": value for name, value in data.facts().items()})
        with collectives.all_or_none(runtime):
            plan = make_plan(config, data.train.size, runtime.replicas)
    console.say(f"{runtime.sentence()}; {plan.sentence()}")
    console.say(data.sentence())
    _warn_of_bad(data, console)
    run = Run(config, runtime, model_dir, console, wish, deadline, data, plan)
    try:
        with deadline.phase("building the model and looking for checkpoints"):
            run.prepare()
        run.train()
        return run.finish_together()
    finally:
        run.close()


class Run:
    """One start of a run: everything that `train_and_evaluate` holds together.

    Attributes:
        state: The `TrainState`.
        progress: The `Progress` of the run so far.
        reporter: The `Reporter`; None on workers that aren't the chief.
        checkpoints: The `CheckpointManager`.
        training: The `Training`.
    """

    def __init__(self, config, runtime, model_dir, console, wish, deadline, data, plan):
        self.config, self.runtime, self.model_dir = config, runtime, model_dir
        self.console, self.wish, self.deadline, self.data, self.plan = console, wish, deadline, data, plan
        self.state = self.progress = self.reporter = self.checkpoints = self.training = None
        self._began, self._known_bad = time.monotonic(), data.bad.here  # all know what was bad from the start
        self._computed_on, self._autotune = None, AutotuneFile(model_dir.autotune)

    @property
    def step(self):
        """Steps done."""
        return self.training.step

    def prepare(self):
        """Builds the state, resumes it, and opens the reports."""
        config, runtime, plan = self.config, self.runtime, self.plan
        self.state = TrainState(config, plan, runtime, len(self.data.classes), self.data.image_shape)
        checkpoints = Checkpoints(self.model_dir.checkpoints, config.keep_checkpoints, self.model_dir.require_lock)
        resumed = resume(runtime, self.model_dir, checkpoints, self.data, self.state, self.console)
        self.progress, step = resumed.progress, int(self.state.step.numpy())
        with collectives.all_or_none(runtime):
            if runtime.is_chief:
                self._open_reports(checkpoints, resumed.report_sizes, step)
        self.checkpoints = CheckpointManager(
            checkpoints, self.state, self._describe, self.model_dir.require_lock, step=step, writes=runtime.is_chief,
            every_steps=plan.checkpoint_every, every_minutes=config.checkpoint_every_minutes)
        self.training = Training(config, runtime, self.data, plan, self.state, self.progress, self.reporter, step)
        self.evaluate = Evaluator(self.state.model, self.data.test, plan.rows, runtime)

    def _open_reports(self, checkpoints, sizes, step):
        """Makes the folder this start's: nothing of later steps is left, and there is room for a checkpoint."""
        self.model_dir.require_lock()
        checkpoints.clear_leftovers()
        checkpoints.forget_after(step)
        checkpoints.require_room(self.state.variables(), "a checkpoint")
        self.model_dir.write_config(self.config, resolved(self.config, self.runtime, self.plan, self.data))
        self.reporter = Reporter(self.model_dir, self.console, sizes, step, self.plan.total_steps, self.config.ledger)
        if step < self.plan.total_steps:
            self.model_dir.result.unlink(missing_ok=True)

    def _describe(self, step):
        """(what a checkpoint's manifest holds besides the state, the reports that must be durable before it counts)."""
        progress = dataclasses.replace(self.progress, wall_seconds=self.wall_seconds())
        evaluated = self.progress.evaluation
        sizes, reports = self.reporter.settle()
        self._computed_on = self._computed_on or self.runtime.record()  # once: it asks nvidia-smi
        return {"epoch": self.plan.epoch(step), "data": self.data.fingerprint, "computed_on": self._computed_on,
                "autotune": self._autotune.keep(), "precision": self.runtime.precision,
                "bits": self.state.bit_versions, "settings": json.loads(self.config.to_json()),
                "evaluation": evaluated if evaluated and evaluated["step"] == step else None,
                "progress": dataclasses.asdict(progress), "reports": sizes}, reports

    def wall_seconds(self):
        """Time of the run in all, over all starts."""
        return self.progress.wall_seconds + time.monotonic() - self._began

    def train(self):
        """Trains and evaluates until the last step, or until the run ends early."""
        if not self._done():
            self.console.start(self.step, self.plan.total_steps)
        while True:
            decision = self._agree()  # the same on all workers
            if decision.stop:
                self._save_and_stop()  # raises Stopped
            if self._evaluation_due():
                self._evaluate()
            elif self._done():
                break
            else:
                if decision.save:
                    self._save()
                self._train_steps(decision.num_steps)
        self._save()
        with self.deadline.phase("waiting for the last save"):
            with collectives.all_or_none(self.runtime):
                self.training.finish_reports()
            self.console.stop()
            with collectives.all_or_none(self.runtime):
                self.checkpoints.wait()

    def _train_steps(self, num_steps):
        """Calls the device loop once; a start's first call makes it, and compiles."""
        if self.training.is_open:
            self.training.call(num_steps)
            return
        if self.step == 0:
            self._introduce()
        self.training.open()
        with self._compiling():
            self.training.call(num_steps)

    def _agree(self):
        """What comes next: the same `Decision` on all workers.

        Raises:
            LockstepError: on all workers, if something failed on one.
        """
        training, bad = self.training, self.data.bad.here - self._known_bad
        # A state in a streak of bad steps must not push the good ones out.
        due = self.checkpoints.is_due(self.step) and not self.progress.bad_in_row
        num_steps = min(training.pace.steps, max(1, self.plan.next_stop(self.step) - self.step))
        with catching() as caught:
            self._check()
        decision = agree(self.runtime, Decision(bool(self.wish.signal), num_steps, due, bad, training.waits.mine()),
                         caught.error)
        self.data.bad.elsewhere = decision.bad_examples - bad
        _warn_of_bad(self.data, self.console)
        self.deadline.progress()
        slow = training.waits.take(decision.own_microseconds)
        if slow and self.reporter:
            self.console.warn(slow)
        return decision

    def _check(self):
        """Raises what went wrong beside the training: in a report, in a save, or in reading the data."""
        if self.training.failure:
            raise self.training.failure
        self.checkpoints.check()
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
            self._save_and_stop()
        seconds = time.monotonic() - began
        record, is_best = self.progress.note_evaluation(self.step, evaluation, self.plan)
        record["learning_rate"] = float(self.state.optimizer.learning_rate)
        record["images_per_second"] = round(evaluation.examples / seconds, 1)
        self.training.report(lambda: self.reporter.evaluation(record, is_best))
        if self.checkpoints.saved_at == self.step:
            self.checkpoints.update_manifest(self.step)
        elif is_best:
            self._save()
        self.training.skip_time()

    def _wanted_back(self):
        (wishes,) = collectives.all_reduce_ints(self.runtime, [int(bool(self.wish.signal))])
        self.deadline.progress("evaluating")
        return wishes > 0

    def _done(self):
        return self.step >= self.plan.total_steps or self.progress.ended_early(self.config, self.step) is not None

    def nothing_to_save(self, doing):
        """Around what may be cut short by a signal; see `StopWish`."""
        return self.wish.nothing_to_save(doing, self.checkpoints.is_settled)

    def _save(self):
        """Begins to save what isn't saved yet, once the save before is through."""
        if self.checkpoints.saved_at != self.step:
            with self.deadline.phase("saving"):
                collectives.require_equal_states(self.runtime, self.state)
                self.checkpoints.save(self.step)

    def _save_and_stop(self):
        self.wish.end()  # what follows is short, and shall not be cut short
        with self.deadline.phase("saving"):
            collectives.require_equal_states(self.runtime, self.state)
            with collectives.all_or_none(self.runtime):
                self._save_all()
            collectives.final_barrier(self.runtime)
        why = self.wish.signal or "another worker was"
        raise Stopped(f"asked to stop ({why}); step {self.step:,} is saved in {self.model_dir.checkpoints}",
                      "run the same command again; it goes on from there")

    def _save_all(self):
        self.training.finish_reports()
        self.checkpoints.wait()
        if self.checkpoints.saved_at != self.step or self.checkpoints.is_empty():
            self.checkpoints.save(self.step)
            self.checkpoints.wait()

    def finish_together(self):
        """Lets the chief finish the run while the other workers wait for it.

        Returns:
            What result.json holds; None on workers that aren't the chief.
        """
        result = None
        if self.runtime.is_chief:
            patience, waiting = self.deadline.LONGER, contextlib.nullcontext()
        else:  # the chief has a deadline of its own, and TensorFlow tells when it is gone
            patience, waiting = math.inf, self.nothing_to_save("waiting for the exports")
        with self.deadline.phase("exporting", patience), waiting:
            with collectives.all_or_none(self.runtime):
                if self.runtime.is_chief:
                    result = finish(self, self._samples)
            collectives.final_barrier(self.runtime)
        return result

    def close(self):
        """Ends all output of the run."""
        self.console.stop()
        if self.checkpoints:
            self.checkpoints.close()
        if self.reporter:
            # All that counts is on the disk; what fails here must not hide what the run ends with.
            with contextlib.suppress(OSError, tf.errors.OpError):
                self.reporter.close()


def _warn_of_bad(data, console):
    """Names what turned out not to be of use; the first few of a start."""
    for line in data.bad.news():
        console.warn(f"left out: {line}")
