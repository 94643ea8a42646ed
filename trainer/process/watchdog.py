"""Nothing hangs: a process that makes no progress for too long prints where each thread stands, and ends."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Iterator

from trainer.errors import WorkerError

_TICK_SECONDS = 0.5
# Between the stacks and the end: workers that wait for each other all have to print their stacks.
_STACKS_SECONDS = 3.0


class Watchdog:
    """A limit on the time without progress: a thread that is stuck may still be alive. It runs while it is entered.

    Time in which the process itself is stopped (Ctrl-Z, a debugger, a machine that sleeps) doesn't count.

    Args:
        seconds: How long a process may go without progress.
    """

    LONGER = 6  # times the seconds, for work that compiles or waits for a disk

    def __init__(self, seconds: float) -> None:
        self._seconds, self._doing = seconds, "starting"
        self._patience: float = self.LONGER
        self._idle, self._ended = 0.0, threading.Event()

    def __enter__(self) -> Watchdog:
        self._stderr = os.dup(2)  # a copy: while TensorFlow is imported, what is written to 2 is kept back
        faulthandler.enable(self._stderr)  # a crash in native code, and SIGABRT from a launcher, show the stacks
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def reset(self, doing: str = "training", patience: float = 1) -> None:
        """Counts from 0 again, for there was progress.

        Args:
            doing: What the process does next, as a user reads it.
            patience: How many times the seconds that may take.
        """
        self._idle, self._patience, self._doing = 0.0, patience, doing

    @contextlib.contextmanager
    def phase(self, doing: str, patience: float = LONGER) -> Iterator[None]:
        """Declares that a block may take longer than a call of the device loop.

        Args:
            doing: What the block does, as a user reads it.
            patience: How many times the seconds it may take; infinite for no limit.
        """
        before = self._doing, self._patience
        self._idle, self._doing, self._patience = 0.0, doing, patience
        try:
            yield
        finally:
            self._idle = 0.0
            self._doing, self._patience = before

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(_TICK_SECONDS):
            now = time.monotonic()
            self._idle += min(now - last, 2 * _TICK_SECONDS)
            last = now
            if self._idle > self._seconds * self._patience:
                self._end()

    def _end(self) -> None:
        limit = self._seconds * self._patience
        self._tell(f"\nlockstep: no progress for {limit:.0f} s while {self._doing}; where every thread stands:\n")
        faulthandler.dump_traceback(self._stderr, all_threads=True)
        time.sleep(_STACKS_SECONDS)
        self._tell(f"lockstep: no progress for {limit:.0f} s while {self._doing} (--hang_timeout={self._seconds:g}); a "
                   "worker, a device or a file system hangs\n  fix: the stacks above show where; run the same "
                   "command again, it goes on from the last checkpoint\n")
        os._exit(WorkerError.code)

    def _tell(self, message: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._stderr, message.encode())
