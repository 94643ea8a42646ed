"""Watches a process whose own threads may be unable to run: a script that `Guard` starts, which imports no package.

Native code may wait for ever while it holds Python's interpreter lock: then no thread of that process runs, neither a
watchdog nor the one that reads signals. This process needs nothing of it. It sees that heartbeats stop and that a
signal stays unread, and ends the process through a pipe that a native thread reads (native_exit.py), so that the exit
code says why; a process that doesn't have that is killed.

Arguments: process id; file descriptors of the heartbeats, of the signals (read by the process itself, only looked at
here), of the pipes that end it with 70 and with 75, and of its stderr, -1 for one that isn't there; and whether the
process is the program's own, 1 or 0: another program's has its own answers to signals.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time

_TICK_SECONDS = 0.25
_SILENT_SECONDS = 8.0  # without a heartbeat: nothing that lets other threads run is silent for so long
_FOR_THE_OTHERS_SECONDS = 3.0  # between the stacks and the end: workers that wait for each other all show theirs
_TO_END_SECONDS = 5.0
_REQUESTS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)


class Watcher:
    """What is known of the process.

    Args:
        pid: Its process id.
        heartbeats, signals, end_70, end_75, stderr: File descriptors; see the top of the file.
        owned: Whether the process is the program's own.
    """

    def __init__(self, pid, heartbeats, signals, end_70, end_75, stderr, owned):
        self._owned = bool(owned)
        self._pid, self._heartbeats, self._signals = pid, heartbeats, signals
        self._ends, self._stderr = {70: end_70, 75: end_75}, stderr
        self._last = {"idle": 0.0, "limit": float("inf"), "doing": "starting", "flag": "", "stopping": False}
        self._silent = self._unread = 0.0

    def run(self):
        """Watches until the process is gone."""
        before = time.monotonic()
        while self._alive():
            now = time.monotonic()
            # A machine that slept, and a process that is stopped, owe no heartbeat for that time.
            passed = 0.0 if self._is_stopped() else min(now - before, 2 * _TICK_SECONDS)
            before = now
            self._silent += passed
            self._unread = self._unread + passed if self._signal_waits() else 0.0
            self._check()

    def _alive(self):
        """Waits a moment for a heartbeat; whether the process is still there."""
        if not select.select([self._heartbeats], [], [], _TICK_SECONDS)[0]:
            return True
        data = os.read(self._heartbeats, 2**16)
        for line in data.splitlines()[-1:]:
            with contextlib.suppress(ValueError):  # the first part of a line
                self._last, self._silent = json.loads(line), 0.0
        return bool(data)

    def _is_stopped(self):
        try:
            with open(f"/proc/{self._pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
        except (OSError, IndexError):
            return False

    def _signal_waits(self):
        """Whether a signal came that the process has not read: it lies in the pipe, or is blocked and pending."""
        if not self._owned:
            return False
        if self._signals >= 0 and select.select([self._signals], [], [], 0)[0]:
            return True
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{self._pid}/status", encoding="utf-8") as file:
            masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd:", "ShdPnd:"))]
            return any(mask >> (number - 1) & 1 for mask in masks for number in _REQUESTS)
        return False

    def _check(self):
        if self._silent < _SILENT_SECONDS:
            return
        doing = self._last["doing"]
        if self._unread > _SILENT_SECONDS or self._last["stopping"]:
            self._end(75, f"asked to stop while native code held the interpreter ({doing})",
                      "run the same command again; it goes on from the last checkpoint")
        if self._last["idle"] + self._silent > self._last["limit"]:
            limit = f"no progress for {self._last['limit']:.0f} s while {doing}"
            if not self._owned:
                self._end(70, f"{limit} ({self._last['flag']}): native code holds the interpreter, and this process "
                          "can't be used any more", "start the kernel or the script again; the run goes on from the "
                          "last checkpoint")
            self._show_stacks(f"{limit}; where every thread stands:")
            self._end(70, f"{limit} ({self._last['flag']}), in native code that holds the interpreter; a worker, a "
                      "device or a file system hangs, or is very slow",
                      "the stacks above say where; run the same command again, with a larger --hang_timeout if it was "
                      "only slow; it goes on from the last checkpoint")

    def _show_stacks(self, sentence):
        self._tell(f"\nlockstep: {sentence}\n")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGUSR2)  # faulthandler answers it without the interpreter's lock
        time.sleep(_FOR_THE_OTHERS_SECONDS)

    def _end(self, code, cause, fix):
        self._tell(f"\nlockstep: {cause}\n  fix: {fix}\n")
        if self._ends[code] >= 0:
            with contextlib.suppress(OSError):
                os.write(self._ends[code], b"x")
            if self._gone_within(_TO_END_SECONDS):
                os._exit(0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os._exit(0)

    def _gone_within(self, seconds):
        """Whether the process ends: then its end of the pipe of heartbeats is closed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._heartbeats], [], [], left)[0] and not os.read(self._heartbeats, 2**16):
                return True
        return False

    def _tell(self, words):
        with contextlib.suppress(OSError):
            os.write(self._stderr, words.encode())


def main():
    """Watches the process that the arguments name."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group: meant for the process that is watched
    Watcher(*map(int, sys.argv[1:])).run()


if __name__ == "__main__":
    main()
