"""Nothing hangs: a process that makes no progress for too long prints where each thread stands, and ends."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Iterator

from trainer.errors import WorkerError
from trainer.process.guard import Guard
from trainer.process.signals import StopRequest

_TICK_SECONDS = 0.5
# Between the stacks and the end: workers that wait for each other all have to print their stacks.
_STACKS_SECONDS = 3.0
_STOPPING_SECONDS = 5.0  # from one word to a launcher to the next, while a stop is on its way


class Watchdog:
    """A limit on the time without progress: a thread that is stuck may still be alive. It runs while it is entered.

    Time in which the process itself is stopped (Ctrl-Z, a debugger, a machine that sleeps) doesn't count.

    Args:
        seconds: How long a process may go without progress.
        stop: The process's request to stop, entered; None where signals are not its business.
    """

    LONGER = 6  # times the seconds, for work that compiles or waits for a disk

    def __init__(self, seconds: float, stop: StopRequest | None = None) -> None:
        self._seconds, self._doing, self._stop = seconds, "starting", stop
        self._patience: float = self.LONGER
        self._idle, self._ended = 0.0, threading.Event()
        self._longest = 0.0  # from one progress to the next, where no phase was declared

    def __enter__(self) -> Watchdog:
        self._stderr = os.dup(2)  # a copy: while TensorFlow is imported, what is written to 2 is kept back
        faulthandler.enable(self._stderr)  # a crash in native code, and SIGABRT from a launcher, show the stacks
        self._begin(Guard(self._stderr, self._stop.descriptor if self._stop else -1))
        return self

    def _begin(self, guard: Guard) -> None:
        """Starts the thread."""
        self._guard = guard
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._guard.close()

    def reset(self, doing: str = "training", patience: float = 1) -> None:
        """Counts from 0 again, for there was progress.

        Args:
            doing: What the process does next, as a user reads it.
            patience: How many times the seconds that may take.
        """
        self._longest = max(self._longest, self._idle if self._patience == 1 else 0.0)
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
        last = told = time.monotonic()
        while True:
            self._guard.beat(idle=self._idle_of_guard(), limit=self._seconds * self._patience, doing=self._doing,
                             flag=f"--hang_timeout={self._seconds:g}", stopping=bool(self._stop and self._stop.signal))
            if self._ended.wait(_TICK_SECONDS):
                return
            now = time.monotonic()
            self._idle += min(now - last, 2 * _TICK_SECONDS)
            last = now
            signal_name = self._stop and self._stop.signal
            if not signal_name:
                told = now
            elif now - told > _STOPPING_SECONDS and self._makes_progress():
                told = now
                self._tell(f"lockstep: {signal_name}: still {self._doing}\n")
            if self._idle > self._seconds * self._patience:
                self._end()

    def _idle_of_guard(self) -> float:
        """The seconds without progress that count for the `Guard`, to which it adds those without a heartbeat."""
        return self._idle

    def _makes_progress(self) -> bool:
        """Whether what a stop waits for goes on: a step of about the usual length, or a save that isn't overdue."""
        usual = self._seconds if self._doing == "saving" else 5.0 + 2 * self._longest
        return self._idle < usual

    def _end(self) -> None:
        limit = self._seconds * self._patience
        self._tell(f"\nlockstep: no progress for {limit:.0f} s while {self._doing}; where every thread stands:\n")
        faulthandler.dump_traceback(self._stderr, all_threads=True)
        time.sleep(_STACKS_SECONDS)
        self._tell(f"lockstep: no progress for {limit:.0f} s while {self._doing} ({self._patience:g} times "
                   f"--hang_timeout={self._seconds:g}); a worker, a device or a file system hangs, or is very slow\n  "
                   "fix: the stacks above show where; run the same command again, with a larger --hang_timeout if it "
                   "was only slow; it goes on from the last checkpoint\n")
        os._exit(WorkerError.code)

    def _tell(self, message: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._stderr, message.encode())
