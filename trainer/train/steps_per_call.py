"""How many steps a call of the device loop takes, so that it lasts about a second."""

import contextlib
import time

_SECONDS = 1.0
_MOST = 100_000


class CallTimer:
    """Learns from the calls how many steps fit into a second.

    The first call compiles, so it takes one step and is not measured.

    Attributes:
        steps: For the next call.
        steps_per_second: Of the last measured call, or None before it.
        last_seconds: How long the last call took; None if it isn't measured.
    """

    def __init__(self):
        self.steps = 1
        self.steps_per_second = self.last_seconds = None
        self._compiled = False

    @contextlib.contextmanager
    def measure(self, count):
        """Times a call of `count` steps."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        if not self._compiled:
            self._compiled = True
            return
        self.last_seconds = seconds
        self.steps_per_second = count / seconds
        # At most tenfold at once: the first measured call is short, and may say little.
        self.steps = max(1, min(int(_SECONDS * self.steps_per_second), 10 * self.steps, _MOST))
