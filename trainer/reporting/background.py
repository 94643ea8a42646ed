"""Writes reports beside the training, in their order: a device that waits for the host to write does nothing."""

import concurrent.futures


class Background:
    """A thread that does one thing after the other.

    What goes wrong in it is raised by the next call of any method but `close`.
    """

    def __init__(self):
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "reports")
        self._running = []

    def begin(self, action, *arguments):
        """Does something after all that was begun before it.

        Args:
            action: A callable.
            *arguments: Its arguments.
        """
        while self._running and self._running[0].done():
            self._running.pop(0).result()
        self._running.append(self._thread.submit(action, *arguments))

    def wait(self):
        """Waits until all is done."""
        while self._running:
            self._running.pop(0).result()

    def close(self):
        """Waits until all is done, and raises nothing."""
        self._thread.shutdown(wait=True)
