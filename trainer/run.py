"""One start of a run: everything that it holds, from its resumed state to its open reports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.checkpoint.checkpoints import Checkpoints
from trainer.checkpoint.manager import CheckpointManager
from trainer.distributed import collectives
from trainer.distributed.devices.autotune import AutotuneFile
from trainer.errors import DataError, FirstFailure
from trainer.export.trial.trial import ExportTrial
from trainer.process.tf_import import tf
from trainer.quality.predictions import Predictions
from trainer.reporting.board.own_metrics import OwnMetrics
from trainer.reporting.board.profile import StepProfile
from trainer.reporting.board.speed import Speedometer
from trainer.reporting.reporter import Reporter
from trainer.reporting.run_record import checkpoint_metadata, resolved_settings
from trainer.reporting.trackers.trackers import Trackers
from trainer.train.evaluation import Evaluator
from trainer.train.inner_loop import InnerLoop
from trainer.train.resume import resume
from trainer.train.state import TrainState

if TYPE_CHECKING:
    from trainer.plan import Job
    from trainer.process.signals import StopRequest
    from trainer.process.watchdog import Watchdog
    from trainer.reporting.console import Console
    from trainer.reporting.timeline.record import Timeline
    from trainer.storage.model_dir import ModelDir


class Run:
    """Builds the state, resumes it, and opens the reports.

    Args:
        job: What the run trains.
        model_dir: The run's folder, claimed.
        console: The terminal and log.txt.
        stop: Entered; a signal becomes its request.
        watchdog: Entered; ends a run that makes no progress.
        timeline: Entered; is told of phases and saves.

    Attributes:
        job, model_dir, console, stop, watchdog, timeline: The arguments.
        state: What a checkpoint holds.
        metrics: The metrics of the run so far.
        reporter: Writes the reports; None on workers that aren't the chief.
        own_metrics: Figures of the user's own; None on workers that aren't the chief.
        checkpoints: Saves the state.
        inner_loop: Trains.
        profile: Profiles some of its steps.
        evaluator: Evaluates the data's evaluated split.
        export_trial: Tries the exports beside the first steps; None on workers that aren't the chief, or if none are
            left.
        initialized_from: The source of the weights that the run began with; None for random ones.
        failures: The first failure of the reports and the saves, which run beside the training.
        trackers: Are told what checkpoints cover, on the chief; to be entered around the training.
    """

    def __init__(self, job: Job, *, model_dir: ModelDir, console: Console, stop: StopRequest,
                 watchdog: Watchdog, timeline: Timeline) -> None:
        self.job, self.model_dir, self.console, self.stop, self.watchdog = job, model_dir, console, stop, watchdog
        self.timeline = timeline
        self.failures, self._began = FirstFailure(), time.monotonic()
        self._computed_on: Mapping[str, Any] | None = None
        self._autotune = AutotuneFile(model_dir.autotune)
        self.reporter: Reporter | None = None
        self.own_metrics: OwnMetrics | None = None
        self.export_trial: ExportTrial | None = None
        self._opened = contextlib.ExitStack()  # closes what `_open` opened, the last first
        timeline.enter("building")
        try:
            with watchdog.phase("building the model and looking for checkpoints"):
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        job, config, runtime = self.job, self.job.config, self.job.runtime
        self.state = TrainState(job)
        checkpoints = Checkpoints(self.model_dir.checkpoints, config.keep_checkpoints, self.model_dir.require_lock)
        resumed = resume(job, self.state, checkpoints, model_dir=self.model_dir, console=self.console)
        self.metrics, step = resumed.metrics, int(self.state.step.numpy())
        self.initialized_from = resumed.initialized_from
        self.timeline.resumed(step)
        with collectives.all_or_none(runtime):
            if runtime.is_chief:
                self._open_reports(checkpoints, resumed.report_sizes, step)
        self._open_trackers(resumed.report_sizes, step)
        self.checkpoints = CheckpointManager(
            checkpoints, self.state, self._describe, self.model_dir.require_lock, failures=self.failures,
            step=None if resumed.report_sizes is None else step, writes=runtime.is_chief,
            every_steps=job.plan.checkpoint_every, every_minutes=config.checkpoint_every_minutes, saved=self._saved)
        self._opened.callback(self.checkpoints.close)
        self.profile = StepProfile(config.profiled, self.model_dir.tensorboard if runtime.is_chief else None,
                                   self.console)
        self._opened.callback(self.profile.close)
        self.inner_loop = InnerLoop(job, self.state, self.metrics, step=step, failures=self.failures)
        self.evaluator = Evaluator(self.state.evaluated, job.data.evaluated, runtime,
                                   per_replica_batch_size=job.plan.per_replica_pass_size)

    def _open_reports(self, checkpoints: Checkpoints, sizes: Mapping[str, Any] | None, step: int) -> None:
        """Prepares the folder for this start: removes what later steps left, and checks the room for a checkpoint."""
        self.own_metrics = OwnMetrics(self.job.config.metrics, self.console.warn)
        self.model_dir.require_lock()
        checkpoints.clear_leftovers()
        checkpoints.forget_after(step)
        self._forget_predictions_after(step)
        checkpoints.require_room(self.state.variables(), "a checkpoint")
        self.model_dir.write_config(self.job.config, resolved_settings(self.job))
        self.reporter = Reporter(self.model_dir, self.console, valid=sizes, first_step=step,
                                 total_steps=self.job.plan.total_steps, ledger=self.job.config.ledger,
                                 evaluated=self.job.data.evaluated, evaluated_name=self.job.data.evaluated_name,
                                 speed=Speedometer(self.job, self.state.model), metrics=self.own_metrics)
        self._opened.callback(self._close_reports, self.reporter)
        if step < self.job.plan.total_steps:
            self.model_dir.result.unlink(missing_ok=True)
            self.export_trial = ExportTrial(self.job)
            self._opened.callback(self.export_trial.close)

    def _open_trackers(self, sizes: Mapping[str, Any] | None, step: int) -> None:
        """Starts the trackers' processes, on the chief; a dry run is no run that anybody tracks."""
        names = self.job.config.trackers if self.job.runtime.is_chief and not self.job.config.dry_run else ()
        evaluated = self.metrics.evaluation and self.metrics.evaluation["step"] == step
        self.trackers = Trackers(names, self.model_dir, self.console, stop=self.stop, watchdog=self.watchdog,
                                 size=sizes["metrics"] if sizes else None, through=step if evaluated else step - 1)
        self._opened.callback(self.trackers.close)

    def _forget_predictions_after(self, step: int) -> None:
        """Removes predictions of later steps: these steps come again, and may come otherwise."""
        for path in (self.model_dir.predictions, self.model_dir.validation_predictions):
            try:
                later = path.exists() and Predictions.read(path).step > step
            except DataError:
                later = True
            if later:
                path.unlink()

    def _saved(self, step: int, metadata: Mapping[str, Any]) -> None:
        """Tells who waits for it that a manifest is on the disk; in the thread that saves."""
        self.console.saved(step)
        self.trackers.covered(step, metadata)

    def _describe(self, step: int) -> tuple[dict[str, Any], list[Path]]:
        """(a checkpoint's metadata, the reports that must be durable before the checkpoint counts)."""
        assert self.reporter is not None  # only the chief saves
        self._computed_on = self._computed_on or self.job.runtime.record()  # once: it calls nvidia-smi
        sizes, reports = self.reporter.flush()
        reports += [path for path in (self.timeline.path,) if path and path.exists()]
        return checkpoint_metadata(
            self.job, self.metrics, step=step, wall_seconds=self.wall_seconds, computed_on=self._computed_on,
            autotune=self._autotune.keep(), bit_versions=self.state.bit_versions, report_sizes=sizes,
            initialized_from=self.initialized_from), reports

    @property
    def step(self) -> int:
        """Steps done."""
        return self.inner_loop.step

    @property
    def evaluated_predictions(self) -> Path:
        """Where the predictions on the evaluated split are kept."""
        data = self.job.data
        return (self.model_dir.predictions if data.validation is None or data.test is None else
                self.model_dir.validation_predictions)

    @property
    def wall_seconds(self) -> float:
        """Time of the run, over all starts."""
        return self.metrics.wall_seconds + time.monotonic() - self._began

    @property
    def is_out_of_time(self) -> bool:
        """Whether `--max_hours` are over."""
        hours = self.job.config.max_hours
        return hours is not None and self.wall_seconds >= hours * 3600

    @property
    def ended_early(self) -> str | None:
        """Why the run ends before its last step, in a few words; None if it doesn't."""
        return self.metrics.ended_early(self.job.config, self.step, self.job.data.evaluated_name)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.job.plan.total_steps or self.ended_early is not None

    @property
    def evaluation_due(self) -> bool:
        """Whether this step must be evaluated, and isn't yet."""
        evaluated = self.metrics.evaluation and self.metrics.evaluation["step"]
        # A run that ends elsewhere than planned (resumed with fewer steps, say) is evaluated where it ends.
        return (self.job.plan.evaluates_at(self.step) or self.is_done) and evaluated != self.step

    def save(self) -> None:
        """Begins to save the state if it isn't saved yet, once the previous save is finished."""
        if self.checkpoints.saved_at != self.step:
            with self.watchdog.phase("saving"), self.timeline.phase("saving"), self.inner_loop.times.saving():
                self.timeline.saving()
                collectives.require_equal_states(self.job.runtime, self.state)
                self.checkpoints.save(self.step)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """For a block that compiles, which may take longer than a user who wants the run to stop will wait."""
        if self.step or self.checkpoints.saved_at is not None:  # else the same command makes the same first weights
            self.save()
        with self.watchdog.phase("compiling"), self.timeline.phase("compiling"), self.nothing_to_save("compiling"):
            yield

    def nothing_to_save(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """For a block that a signal may end anywhere, as `StopRequest.nothing_to_save` describes.

        Args:
            doing: What the block does, as a user reads it.
        """
        return self.stop.nothing_to_save(doing, self.checkpoints.wait_until_finished)

    def finish_reports(self) -> None:
        """Waits for all reports of the steps done.

        Raises:
            LockstepError: the first failure of a report or a save.
        """
        if self.reporter:
            with self.failures:
                self.reporter.wait()
        self.failures.check()

    def close(self) -> None:
        """Ends all output of the run."""
        self.console.stop()
        self._opened.close()

    @staticmethod
    def _close_reports(reporter: Reporter) -> None:
        # All that counts is on the disk; a failure here must not hide the error that the run ends with.
        with contextlib.suppress(OSError, tf.errors.OpError):
            reporter.close()
