"""Nothing hangs: a process that makes no progress for too long says where it stands, and ends."""

import contextlib
import faulthandler
import os
import threading
import time

from trainer.errors import WorkerError

_TICK_SECONDS = 0.5
# Between the stacks and the end: workers that wait for each other all have to tell theirs.
_FOR_THE_OTHERS_SECONDS = 3.0


class Watchdog:
    """A limit on the time without progress: a thread that is stuck may still be alive. It runs while it is entered.

    Time in which the process itself is stopped (Ctrl-Z, a debugger, a machine that sleeps) doesn't count.

    Args:
        seconds: How long a process may go without progress.
    """

    LONGER = 6  # times the seconds, for what compiles or waits for a disk

    def __init__(self, seconds):
        self._seconds, self._patience, self._doing = seconds, self.LONGER, "starting"
        self._idle, self._ended = 0.0, threading.Event()

    def __enter__(self):
        self._stderr = os.dup(2)  # while TensorFlow is imported, what goes to the usual one is kept back
        faulthandler.enable(self._stderr)  # a crash in native code, and SIGABRT from a launcher, show the stacks
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        return self

    def __exit__(self, *_):
        self._ended.set()

    def reset(self, doing="training", patience=1):
        """Counts from 0 again: something was done, and what comes next may take `patience` times the seconds."""
        self._idle, self._patience, self._doing = 0.0, patience, doing

    @contextlib.contextmanager
    def phase(self, doing, patience=LONGER):
        """Declares that a block may take `patience` times as long as a call of the device loop."""
        before = self._doing, self._patience
        self._idle, self._doing, self._patience = 0.0, doing, patience
        try:
            yield
        finally:
            self._idle = 0.0
            self._doing, self._patience = before

    def _watch(self):
        last = time.monotonic()
        while not self._ended.wait(_TICK_SECONDS):
            now = time.monotonic()
            self._idle += min(now - last, 2 * _TICK_SECONDS)
            last = now
            if self._idle > self._seconds * self._patience:
                self._end()

    def _end(self):
        limit = self._seconds * self._patience
        self._tell(f"\nlockstep: no progress for {limit:.0f} s while {self._doing}; where every thread stands:\n")
        faulthandler.dump_traceback(self._stderr, all_threads=True)
        time.sleep(_FOR_THE_OTHERS_SECONDS)
        self._tell(f"lockstep: no progress for {limit:.0f} s while {self._doing} (--hang_timeout={self._seconds:g}); a "
                   "worker, a device or a file system hangs\n  fix: the stacks above say where; run the same "
                   "command again, it goes on from the last checkpoint\n")
        os._exit(WorkerError.code)

    def _tell(self, words):
        with contextlib.suppress(OSError):
            os.write(self._stderr, words.encode())
