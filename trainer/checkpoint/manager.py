"""When a checkpoint is due, and what is being saved: values and a metadata dict in, nothing of reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainer.checkpoint.async_writer import AsyncWriter

if TYPE_CHECKING:
    from trainer.checkpoint.checkpoints import Checkpoints
    from trainer.errors import FirstFailure
    from trainer.process.tf_import import tf
    from trainer.train.state import TrainState


class _RequireLock(Protocol):
    """As `ModelDir.require_lock`."""

    def __call__(self, closely: bool = True) -> None: ...


class CheckpointManager:
    """Saves a run's state beside the training. Only the chief writes; every worker knows what is saved.

    Args:
        checkpoints: The checkpoints of the run.
        state: The state that is saved.
        describe: A function of a step to (the metadata of its manifest, the files that must be durable before it).
        require_lock: Raises if the folder belongs to another run by now; closely=False for a check that costs nothing.
        failures: Takes the error of a save that can't begin.
        step: The step whose state is saved already; None for a run without a checkpoint.
        writes: Whether this worker writes.
        every_steps: Steps from one checkpoint to the next; 0 for none by steps.
        every_minutes: Minutes from one checkpoint to the next; 0 for none by time.
        saved: As `AsyncWriter` takes it.

    Attributes:
        saved_at: The step whose state is saved, or is being saved; None before the first.
    """

    def __init__(self, checkpoints: Checkpoints, state: TrainState,
                 describe: Callable[[int], tuple[Mapping[str, Any], Collection[Path]]], require_lock: _RequireLock, *,
                 failures: FirstFailure, step: int | None, writes: bool, every_steps: int, every_minutes: float,
                 saved: Callable[[int, Mapping[str, Any]], object] | None = None) -> None:
        self._checkpoints, self._state, self._describe = checkpoints, state, describe
        self._require_lock, self._writes = require_lock, writes
        self._every_steps, self._every_minutes = every_steps, every_minutes
        self._writer, self._failures = AsyncWriter(checkpoints, saved), failures
        self.saved_at, self._saved_time = step, time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due at a step, by steps or by time."""
        if self.saved_at == step or not step:
            return False
        by_steps = self._every_steps and step % self._every_steps == 0
        by_time = self._every_minutes and time.monotonic() - self._saved_time > 60 * self._every_minutes
        return bool(by_steps or by_time)

    def save(self, step: int) -> None:
        """Begins to save the state. `check` and `wait` raise an error of the save.

        Args:
            step: Steps done.
        """
        if self._writes and not self._failures.error:
            with self._failures:
                self._require_lock()
                self._writer.wait()
                self._writer.save(self._state.snapshot(), *self._describe(step))
        self.saved_at, self._saved_time = step, time.monotonic()

    def update_manifest(self, step: int) -> None:
        """Writes a checkpoint's manifest again, with what is known about its step by now.

        Args:
            step: The step of the checkpoint.
        """
        if self._writes and not self._failures.error:
            with self._failures:
                self._require_lock()
                self._writer.update_manifest(step, *self._describe(step))

    def check(self) -> None:
        """Raises the error of a finished save, if there is one, or an error if another run has the folder now."""
        self._failures.check()
        self._require_lock(closely=False)
        self._writer.check()

    def wait(self) -> None:
        """Waits until all saves are finished; raises the first error."""
        self._failures.check()
        self._writer.wait()

    def wait_until_finished(self) -> bool:
        """Waits until all saves are finished, and returns whether all succeeded. Raises nothing; for any thread."""
        return self._failures.error is None and self._writer.wait_until_finished()

    def restore_best(self, variables: Mapping[str, tf.Variable]) -> dict[str, Any]:
        """Assigns the values of the best evaluated checkpoint to variables; all saves must be finished.

        Args:
            variables: Name to variable; the checkpoint may hold more values.

        Returns:
            The checkpoint's manifest.

        Raises:
            DataError: if no checkpoint was evaluated.
            StorageError: if the best one is damaged.
        """
        manifest = self._checkpoints.find("best")
        self._checkpoints.restore(variables, manifest)
        return manifest

    def close(self) -> None:
        """Waits until all saves are finished. Raises nothing."""
        self._writer.close()
