"""Writes checkpoints beside the training: one at a time, in their order, in a thread of its own."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.checkpoint.checkpoints import Checkpoints

_NICENESS = 10


class AsyncWriter:
    """Saves in the background.

    The error of a save is raised by the next call of `save`, `update_manifest`, `check` or `wait`.

    Args:
        checkpoints: The checkpoints of the run.
        saved: Called in the thread with the step and the metadata of each manifest that is on the disk; raises nothing.
    """

    def __init__(self, checkpoints: Checkpoints,
                 saved: Callable[[int, Mapping[str, Any]], object] | None = None) -> None:
        self._checkpoints, self._saved = checkpoints, saved
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "saver", initializer=_give_way)
        self._running: list[concurrent.futures.Future[None]] = []

    def save(self, values: Mapping[str, Any], metadata: Mapping[str, Any], reports: Collection[Path]) -> None:
        """Begins what `Checkpoints.save` does. Call `wait` before copying the state, so that one copy exists at most.

        Args:
            values, metadata, reports: As in `Checkpoints.save`.
        """
        self._begin(int(values["step"]), metadata, self._checkpoints.save, values, metadata, reports)

    def update_manifest(self, step: int, metadata: Mapping[str, Any], reports: Collection[Path]) -> None:
        """Begins what `Checkpoints.update_manifest` does, after the saves that are under way.

        Args:
            step, metadata, reports: As in `Checkpoints.update_manifest`.
        """
        self._begin(step, metadata, self._checkpoints.update_manifest, step, metadata, reports)

    def check(self) -> None:
        """Raises the error of a finished save, if there is one."""
        while self._running and self._running[0].done():
            self._running.pop(0).result()

    def wait(self) -> None:
        """Waits until all saves are finished; raises the first error."""
        while self._running:
            self._running[0].result()
            self._running.pop(0)

    def wait_until_finished(self) -> bool:
        """Waits until all saves are finished, and returns whether all succeeded. Raises nothing; for any thread."""
        return all(save.exception() is None for save in tuple(self._running))

    def close(self) -> None:
        """Waits until all saves are finished, and ends the thread. Raises nothing."""
        self._thread.shutdown(wait=True)

    def _begin(self, step: int, metadata: Mapping[str, Any], write: Callable[..., None], *arguments: Any) -> None:
        self.check()
        self._running.append(self._thread.submit(self._write, step, metadata, write, *arguments))

    def _write(self, step: int, metadata: Mapping[str, Any], write: Callable[..., None], *arguments: Any) -> None:
        write(*arguments)
        if self._saved:
            self._saved(step, metadata)


def _give_way() -> None:
    """Gives training precedence on a core that both need; on Linux each thread has a priority of its own."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
