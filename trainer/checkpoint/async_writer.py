"""Writes checkpoints beside the training: one at a time, in their order, in a thread of its own."""

import concurrent.futures
import contextlib
import os
import threading

_NICENESS = 10


class AsyncWriter:
    """Saves in the background.

    An error of a save is raised by the next call of any method but `close`.

    Args:
        checkpoints: The run's `Checkpoints`.
    """

    def __init__(self, checkpoints):
        self._checkpoints = checkpoints
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "saver", initializer=_give_way)
        self._running = []

    def save(self, values, metadata, reports):
        """Begins what `Checkpoints.save` does. Call `wait` before making the copy, so that there is one at most."""
        self._begin(self._checkpoints.save, values, metadata, reports)

    def update_manifest(self, step, metadata, reports):
        """Begins what `Checkpoints.update_manifest` does, after the saves that are under way."""
        self._begin(self._checkpoints.update_manifest, step, metadata, reports)

    def check(self):
        """Raises what went wrong in a save that is over."""
        while self._running and self._running[0].done():
            self._running.pop(0).result()

    def wait(self):
        """Waits until all is on the disk."""
        while self._running:
            self._running[0].result()
            self._running.pop(0)

    def wait_until_finished(self):
        """Waits until nothing is under way; whether all went well. Raises nothing; from any thread."""
        return all(save.exception() is None for save in tuple(self._running))

    def close(self):
        """Waits for what is under way, however it ends."""
        self._thread.shutdown(wait=True)

    def _begin(self, write, *arguments):
        self.check()
        self._running.append(self._thread.submit(write, *arguments))


def _give_way():
    """Lets training go first where both want the same core; on Linux threads have a priority of their own."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
