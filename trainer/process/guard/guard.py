"""A process of its own that ends this one where native code holds the interpreter's lock and never comes back."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from trainer.process.guard import native_exit

_SCRIPT = Path(__file__).with_name("watcher.py")
_CLOSE_SECONDS = 5.0


class Guard:
    """Starts the watcher (watcher.py), and tells it that this process's threads run.

    Args:
        stderr: Where the watcher and the stacks are written: a file descriptor.
        signals: The descriptor from which this process reads its signals; -1 for none.
        owns_process: Whether the process is this program's: its signals are, and pipes that end it may stay in it.
            Another program's process is ended by SIGKILL, and only where native code holds the interpreter's lock.
    """

    def __init__(self, stderr: int, signals: int, owns_process: bool = True) -> None:
        if owns_process and hasattr(faulthandler, "register"):
            faulthandler.register(signal.SIGUSR2, stderr, all_threads=True)
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        ends = [native_exit.arm(code) if owns_process else -1 for code in (70, 75)]
        passed = [reader, signals, *ends, stderr]
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):  # a machine that has no process left has other worries
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SCRIPT), str(os.getpid()), *map(str, passed), str(int(owns_process))],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=[descriptor for descriptor in passed if descriptor >= 0])
        os.close(reader)

    def beat(self, *, idle: float, limit: float, doing: str, flag: str, stopping: bool) -> None:
        """Says that Python code runs.

        Args:
            idle: Seconds without progress so far.
            limit: Seconds without progress after which the process is to end.
            doing: What it does, as a user reads it.
            flag: The flag that sets the limit, as a user wrote it.
            stopping: Whether it was asked to stop.
        """
        beat = {"idle": idle, "limit": limit, "doing": doing, "flag": flag, "stopping": stopping}
        with contextlib.suppress(OSError):  # full, because the watcher is stopped; or the watcher is gone
            os.write(self._writer, json.dumps(beat).encode() + b"\n")

    def close(self) -> None:
        """Ends the watcher."""
        os.close(self._writer)
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSE_SECONDS)
            self._process.kill()
            self._process.wait()
