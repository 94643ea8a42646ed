"""One start of a run: everything that it holds, from its resumed state to its open reports."""

import contextlib
import time

from trainer.checkpoint.checkpoints import Checkpoints
from trainer.checkpoint.manager import CheckpointManager
from trainer.distributed import collectives
from trainer.distributed.devices.autotune import AutotuneFile
from trainer.errors import FirstFailure
from trainer.process.tf_import import tf
from trainer.reporting.reporter import Reporter
from trainer.reporting.run_record import checkpoint_metadata, resolved_settings
from trainer.train.evaluation import Evaluator
from trainer.train.inner_loop import InnerLoop
from trainer.train.resume import resume
from trainer.train.state import TrainState


class Run:
    """Builds the state, resumes it, and opens the reports.

    Args:
        job: The `Job`.
        model_dir: The run's `ModelDir`, claimed.
        console: The `Console`.
        stop: The `StopRequest`.
        watchdog: The `Watchdog`.

    Attributes:
        job, model_dir, console, stop, watchdog: As given.
        state: The `TrainState`.
        metrics: The `RunMetrics` of the run so far.
        reporter: The `Reporter`; None on workers that aren't the chief.
        checkpoints: The `CheckpointManager`.
        inner_loop: The `InnerLoop`.
        evaluator: The `Evaluator`.
        failures: The `FirstFailure` of what goes on beside the training.
    """

    def __init__(self, job, *, model_dir, console, stop, watchdog):
        self.job, self.model_dir, self.console, self.stop, self.watchdog = job, model_dir, console, stop, watchdog
        self.failures, self._began = FirstFailure(), time.monotonic()
        self._computed_on, self._autotune = None, AutotuneFile(model_dir.autotune)
        self.reporter = self.checkpoints = None
        try:
            with watchdog.phase("building the model and looking for checkpoints"):
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self):
        job, config, runtime = self.job, self.job.config, self.job.runtime
        self.state = TrainState(job)
        checkpoints = Checkpoints(self.model_dir.checkpoints, config.keep_checkpoints, self.model_dir.require_lock)
        resumed = resume(job, self.state, checkpoints, model_dir=self.model_dir, console=self.console)
        self.metrics, step = resumed.metrics, int(self.state.step.numpy())
        with collectives.all_or_none(runtime):
            if runtime.is_chief:
                self._open_reports(checkpoints, resumed.report_sizes, step)
        self.checkpoints = CheckpointManager(
            checkpoints, self.state, self._describe, self.model_dir.require_lock, failures=self.failures, step=step,
            writes=runtime.is_chief, every_steps=job.plan.checkpoint_every,
            every_minutes=config.checkpoint_every_minutes)
        self.inner_loop = InnerLoop(job, self.state, self.metrics, step=step, failures=self.failures)
        self.evaluator = Evaluator(self.state.model, job.data.test, runtime,
                                   per_replica_batch_size=job.plan.per_replica_batch_size)

    def _open_reports(self, checkpoints, sizes, step):
        """Makes the folder this start's: nothing of later steps is left, and there is room for a checkpoint."""
        self.model_dir.require_lock()
        checkpoints.clear_leftovers()
        checkpoints.forget_after(step)
        checkpoints.require_room(self.state.variables(), "a checkpoint")
        self.model_dir.write_config(self.job.config, resolved_settings(self.job))
        self.reporter = Reporter(self.model_dir, self.console, valid=sizes, first_step=step,
                                 total_steps=self.job.plan.total_steps, ledger=self.job.config.ledger)
        if step < self.job.plan.total_steps:
            self.model_dir.result.unlink(missing_ok=True)

    def _describe(self, step):
        """(what a checkpoint's manifest holds besides the state, the reports that must be durable before it counts)."""
        self._computed_on = self._computed_on or self.job.runtime.record()  # once: it asks nvidia-smi
        sizes, reports = self.reporter.flush()
        return checkpoint_metadata(
            self.job, self.metrics, step=step, wall_seconds=self.wall_seconds, computed_on=self._computed_on,
            autotune=self._autotune.keep(), bit_versions=self.state.bit_versions, report_sizes=sizes), reports

    @property
    def step(self):
        """Steps done."""
        return self.inner_loop.step

    @property
    def wall_seconds(self):
        """Time of the run in all, over all starts."""
        return self.metrics.wall_seconds + time.monotonic() - self._began

    @property
    def ended_early(self):
        """Why the run ends before its last step, in a few words; None if it doesn't."""
        return self.metrics.ended_early(self.job.config, self.step)

    @property
    def is_done(self):
        """Whether there is nothing left to train."""
        return self.step >= self.job.plan.total_steps or self.ended_early is not None

    @property
    def evaluation_due(self):
        """Whether this step is to be evaluated, and isn't yet."""
        evaluated = self.metrics.evaluation and self.metrics.evaluation["step"]
        # A run that ends elsewhere than planned (resumed with fewer steps, say) is evaluated where it ends.
        return (self.job.plan.evaluates_at(self.step) or self.is_done) and evaluated != self.step

    def save(self):
        """Begins to save what isn't saved yet, once the save before is through."""
        if self.checkpoints.saved_at != self.step:
            with self.watchdog.phase("saving"):
                collectives.require_equal_states(self.job.runtime, self.state)
                self.checkpoints.save(self.step)

    @contextlib.contextmanager
    def compiling(self):
        """Around what compiles: it may take longer than the patience of a user who wants the run to stop."""
        self.save()
        with self.watchdog.phase("compiling"), self.nothing_to_save("compiling"):
            yield

    def nothing_to_save(self, doing):
        """Around what may be cut short by a signal; see `StopRequest`."""
        return self.stop.nothing_to_save(doing, self.checkpoints.wait_until_finished)

    def finish_reports(self):
        """Waits for all reports of the steps done; raises what went wrong in them."""
        if self.reporter:
            with self.failures:
                self.reporter.wait()
        self.failures.check()

    def close(self):
        """Ends all output of the run."""
        self.console.stop()
        if self.checkpoints:
            self.checkpoints.close()
        if self.reporter:
            # All that counts is on the disk; what fails here must not hide what the run ends with.
            with contextlib.suppress(OSError, tf.errors.OpError):
                self.reporter.close()
