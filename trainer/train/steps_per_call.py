"""How many steps a call of the device loop takes, so that it lasts about a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

_SECONDS = 1.0
_MOST = 100_000


class CallTimer:
    """Learns from the calls how many steps fit into a second.

    The first call compiles, so it takes one step and is not measured; nor are others that compile.

    Attributes:
        steps: Number of steps of the next call.
        steps_per_second: The speed of the last measured call; None before the first.
        last_seconds: Time of the last measured call; None before the first.
    """

    def __init__(self) -> None:
        self.steps = 1
        self.steps_per_second: float | None = None
        self.last_seconds: float | None = None
        self._compiled = False

    def compiles_next(self) -> None:
        """Tells that the next call compiles, too."""
        self._compiled = False

    @contextlib.contextmanager
    def measure(self, count: int) -> Iterator[None]:
        """Times a block that calls the device loop.

        Args:
            count: Number of steps of the call.
        """
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        if not self._compiled:
            self._compiled = True
            return
        self.last_seconds = seconds
        self.steps_per_second = count / seconds
        # At most tenfold at once: the first measured call is short, so its speed is inexact.
        self.steps = max(1, min(int(_SECONDS * self.steps_per_second), 10 * self.steps, _MOST))
