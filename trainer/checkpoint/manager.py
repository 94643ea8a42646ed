"""When a checkpoint is due, and what is being saved: values and a metadata dict in, nothing of reports."""

import time

from trainer.checkpoint.async_writer import Saver
from trainer.errors import failure_of


class CheckpointManager:
    """Saves a run's state beside the training. Only the chief writes; every worker knows what is saved.

    Args:
        checkpoints: The run's `Checkpoints`.
        state: The `TrainState`.
        describe: A function of a step to (what the manifest holds besides, the files that must be durable before).
        require_lock: Raises if the folder is another run's by now; takes closely=False for a look that costs nothing.
        step: The step whose state is saved already, or 0.
        writes: Whether this worker writes.
        every_steps, every_minutes: From one checkpoint to the next; 0 for none.

    Attributes:
        saved_at: The step whose state is saved, or is being saved.
    """

    def __init__(self, checkpoints, state, describe, require_lock, *, step, writes, every_steps, every_minutes):
        self._checkpoints, self._state, self._describe = checkpoints, state, describe
        self._require_lock, self._writes = require_lock, writes
        self._every_steps, self._every_minutes = every_steps, every_minutes
        self._saver, self._failure = Saver(checkpoints), None
        self.saved_at, self._saved_time = step, time.monotonic()

    def is_due(self, step):
        """Whether a checkpoint is due at a step, by steps or by time."""
        if self.saved_at == step:
            return False
        by_steps = self._every_steps and step % self._every_steps == 0
        by_time = self._every_minutes and time.monotonic() - self._saved_time > 60 * self._every_minutes
        return bool(by_steps or by_time)

    def save(self, step):
        """Begins to save what the state is now. What goes wrong, `check` and `wait` raise.

        Args:
            step: Which step that is.
        """
        if self._writes:
            self._failure = self._failure or failure_of(lambda: self._begin_to_save(step))
        self.saved_at, self._saved_time = step, time.monotonic()

    def _begin_to_save(self, step):
        self._require_lock()
        self._saver.wait()
        self._saver.save(self._state.snapshot(), *self._describe(step))

    def update_manifest(self, step):
        """Adds to the checkpoint of a step what is known about it by now."""
        def update():
            self._require_lock()
            self._saver.amend(step, *self._describe(step))

        if self._writes:
            self._failure = self._failure or failure_of(update)

    def check(self):
        """Raises what went wrong in a save that is over, or that another run has the folder now."""
        if self._failure:
            raise self._failure
        self._require_lock(closely=False)
        self._saver.check()

    def wait(self):
        """Waits until everything is saved; raises what went wrong."""
        if self._failure:
            raise self._failure
        self._saver.wait()

    def is_settled(self):
        """Waits until nothing is being saved; whether all went well. From any thread."""
        return self._failure is None and self._saver.settled()

    def is_empty(self):
        """Whether nothing is saved yet."""
        return not self._checkpoints.steps()

    def close(self):
        """Waits for what is being saved, however it ends."""
        self._saver.close()
