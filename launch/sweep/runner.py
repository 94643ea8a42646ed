"""Runs a sweep's jobs: so many at a time, started again where another start may help, ended with the sweep."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

from launch import restart_policy
from launch.gpus import Slot
from launch.sweep import results
from launch.sweep.display import Display
from launch.sweep.grid import Run
from launch.sweep.job import Job
from trainer.errors import BusyError
from trainer.process.signals import StopRequest

_TICK_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 60.0
# The runs of a sweep that was killed save before they end, and lock their folders until then.
_BUSY_SECONDS, _MOST_BUSY = 2.0, 30


class Sweep:
    """Runs jobs until all are done or failed, or until the sweep is asked to stop.

    Args:
        jobs: The sweep's, in the order in which they are started.
        slots: Where jobs run: one at a time on each.
        max_restarts: How often a run is started again.
        display: Shows what happens to the jobs.
        changed: Called whenever a run has ended.
    """

    def __init__(self, jobs: Sequence[Job], slots: Sequence[Slot], max_restarts: int, display: Display,
                 changed: Callable[[], None]) -> None:
        self._jobs, self._slots, self._max_restarts = jobs, slots, max_restarts
        self._display, self._changed = display, changed

    def run(self, stop: StopRequest) -> None:
        """Starts and watches the runs.

        Args:
            stop: Once it has a signal, the runs are asked to save and to stop.
        """
        stopping = False
        try:
            while self._running() or (not stopping and self._waiting()):
                for job, process in self._running():
                    if (code := process.poll()) is not None:
                        self._ended(job, code, stopping)
                if stop.signal and not stopping:
                    stopping = True
                    self._display.stop_requested(stop.signal)
                    self._stop()
                if not stopping:
                    self._start()
                self._display.show()
                time.sleep(_TICK_SECONDS)
        finally:
            self._stop()  # where an error ends the sweep
            for _, process in self._running():
                process.wait()

    def _running(self) -> list[tuple[Job, subprocess.Popen[bytes]]]:
        return [(job, job.process) for job in self._jobs if job.process is not None]

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs if job.state in ("waiting", "again")]

    def _stop(self) -> None:
        for _, process in self._running():
            process.terminate()

    def _start(self) -> None:
        """Starts the next runs where there is a free slot."""
        taken = [job.slot for job, _ in self._running()]
        free = [slot for slot in self._slots if slot not in taken]
        for job in self._waiting():
            if not free:
                break
            if job.not_before > time.monotonic():
                continue
            # On another slot than last time, if there is a choice: the last one's GPU may be what failed.
            slot = next((slot for slot in free if slot != job.slot), free[0])
            free.remove(slot)
            job.start(slot)
            again = f", start {job.starts}" if job.starts > 1 else ""
            self._display.note(job, f"on {slot.name}{again}")

    def _ended(self, job: Job, code: int, stopping: bool) -> None:
        """Notes how a run ended, and decides what follows.

        Args:
            job: The run's.
            code: The exit code, or minus a signal's number.
            stopping: Whether the sweep was asked to stop.
        """
        job.code, job.process = (code if code >= 0 else 128 - code), None
        if code == 0:
            job.state = "done"
            self._display.note(job, f"done: {_outcome(job.run)}")
        elif stopping and restart_policy.starts_again(code):
            job.state = "stopped"
            self._display.note(job, "stopped; it goes on when the sweep does")
        elif code == BusyError.code and job.busy < _MOST_BUSY:
            job.starts, job.busy = job.starts - 1, job.busy + 1
            self._again(job, _BUSY_SECONDS)
        elif restart_policy.starts_again(code) and job.starts <= self._max_restarts:
            self._again(job, min(_LONGEST_WAIT_SECONDS, 2.0 ** (job.starts - 1)))
        else:
            job.state = "failed"
            self._display.note(job, f"failed: it {job.ending()}")
        self._changed()

    def _again(self, job: Job, seconds: float) -> None:
        job.state, job.not_before = "again", time.monotonic() + seconds
        self._display.note(job, f"{job.ending()}; it is started again in {seconds:.0f} s")


def _outcome(run: Run) -> str:
    figures = results.figures(run)
    if not figures:
        return "without a result"
    return f"accuracy {figures['eval_accuracy']:.2%}, {figures['wall_seconds'] or 0:,.0f} s"
