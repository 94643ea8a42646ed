"""Writes reports beside the training, in their order: a device that waits for the host to write does nothing."""

import concurrent.futures
from collections.abc import Callable
from typing import Any


class Background:
    """A thread that calls one function after the other.

    An exception in the thread is raised by the next call of any method but `close`.
    """

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "reports")
        self._running: list[concurrent.futures.Future[Any]] = []

    def begin(self, action: Callable[..., object], *arguments: Any) -> None:
        """Lets the thread call a function after all functions that were begun before it.

        Args:
            action: The function; what it returns is ignored.
            *arguments: Its arguments.

        Raises:
            Exception: of an earlier function.
        """
        while self._running and self._running[0].done():
            self._running.pop(0).result()
        self._running.append(self._thread.submit(action, *arguments))

    def wait(self) -> None:
        """Waits until all functions have returned.

        Raises:
            Exception: of one of them.
        """
        while self._running:
            self._running.pop(0).result()

    def close(self) -> None:
        """Waits until all functions have returned, and raises nothing."""
        self._thread.shutdown(wait=True)
