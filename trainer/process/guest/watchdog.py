"""A watchdog that ends no process: it says where every thread stands, and lets the run wait on."""

from __future__ import annotations

import contextlib
import faulthandler
import os

from trainer.process.exit import tell
from trainer.process.guard import Guard
from trainer.process.watchdog import Watchdog


class GuestWatchdog(Watchdog):
    """Tells of a run that makes no progress, once in each `seconds` without any.

    Only where native code holds the interpreter's lock for that long, so that no thread can run any more, its watcher
    ends the process.

    Args:
        seconds: How long a run may go without progress.
    """

    def __enter__(self) -> GuestWatchdog:
        self._stderr = os.dup(2)
        self._begin(Guard(self._stderr, -1, owns_process=False))
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        os.close(self._stderr)

    def _idle_of_guard(self) -> float:
        return 0.0  # a thread that waits without the lock keeps nobody from working

    def _end(self) -> None:
        limit, doing = self._seconds * self._patience, self._doing
        tell(f"\nlockstep: no progress for {limit:.0f} s while {doing}; a device or a file system hangs, or is very "
             "slow. The run waits on; where every thread stands is on the process's own stderr\n  fix: Ctrl-C stops "
             "the run if it comes back; else start the kernel or script again: the run goes on from its checkpoint")
        with contextlib.suppress(OSError, ValueError):
            faulthandler.dump_traceback(self._stderr, all_threads=True)
        self._idle = 0.0
