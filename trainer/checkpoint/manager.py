"""When a checkpoint is due, and what is being saved: values and a metadata dict in, nothing of reports."""

import time

from trainer.checkpoint.async_writer import AsyncWriter


class CheckpointManager:
    """Saves a run's state beside the training. Only the chief writes; every worker knows what is saved.

    Args:
        checkpoints: The run's `Checkpoints`.
        state: The `TrainState`.
        describe: A function of a step to (what the manifest holds besides, the files that must be durable before).
        require_lock: Raises if the folder belongs to another run by now; closely=False for a check that costs nothing.
        failures: The `FirstFailure` that hears of what goes wrong when a save begins.
        step: The step whose state is saved already, or 0.
        writes: Whether this worker writes.
        every_steps: Steps from one checkpoint to the next; 0 for none by steps.
        every_minutes: Minutes from one checkpoint to the next; 0 for none by time.

    Attributes:
        saved_at: The step whose state is saved, or is being saved.
    """

    def __init__(self, checkpoints, state, describe, require_lock, *, failures, step, writes, every_steps,
                 every_minutes):
        self._checkpoints, self._state, self._describe = checkpoints, state, describe
        self._require_lock, self._writes = require_lock, writes
        self._every_steps, self._every_minutes = every_steps, every_minutes
        self._writer, self._failures = AsyncWriter(checkpoints), failures
        self.saved_at, self._saved_time = step, time.monotonic()

    def is_due(self, step):
        """Whether a checkpoint is due at a step, by steps or by time."""
        if self.saved_at == step:
            return False
        by_steps = self._every_steps and step % self._every_steps == 0
        by_time = self._every_minutes and time.monotonic() - self._saved_time > 60 * self._every_minutes
        return bool(by_steps or by_time)

    def save(self, step):
        """Begins to save what the state is now. `check` and `wait` raise what goes wrong.

        Args:
            step: The number of steps done.
        """
        if self._writes and not self._failures.error:
            with self._failures:
                self._require_lock()
                self._writer.wait()
                self._writer.save(self._state.snapshot(), *self._describe(step))
        self.saved_at, self._saved_time = step, time.monotonic()

    def update_manifest(self, step):
        """Writes the checkpoint's manifest again, with what is known about its step by now."""
        if self._writes and not self._failures.error:
            with self._failures:
                self._require_lock()
                self._writer.update_manifest(step, *self._describe(step))

    def check(self):
        """Raises what went wrong in a save that is over, or that another run has the folder now."""
        self._failures.check()
        self._require_lock(closely=False)
        self._writer.check()

    def wait(self):
        """Waits until everything is saved; raises what went wrong."""
        self._failures.check()
        self._writer.wait()

    def wait_until_finished(self):
        """Waits until nothing is being saved; returns whether all went well. From any thread."""
        return self._failures.error is None and self._writer.wait_until_finished()

    def is_empty(self):
        """Whether nothing is saved yet."""
        return not self._checkpoints.steps()

    def close(self):
        """Waits for what is being saved; raises nothing."""
        self._writer.close()
