"""A sweep's runs as processes: so many at a time, started again where that may help, ended with the sweep."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from datetime import datetime

from launch import restart_policy
from launch.sweep import results
from trainer.errors import BusyError

_TICK_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 60.0
# The runs of a sweep that was killed save before they end, and have their folders until then.
_BUSY_SECONDS, _MOST_BUSY = 2.0, 30
_TAIL_BYTES = 1 << 16
_HEADER = "--- "  # before the output of a start
# A run is one process, also where the sweep itself is a task of a larger job.
_OF_A_JOB = ("TF_CONFIG", "SLURM_STEP_ID")
# Becomes the run's process, having asked Linux to send it SIGTERM when the sweep's ends, however that ends. Not
# done between fork and exec: there, in a process with threads, little may be done.
_TETHERED = """
import ctypes, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_DFL)
try:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
except (OSError, AttributeError):
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclasses.dataclass
class Job:
    """A run, and how it stands.

    Args:
        run: The `grid.Run`.
        state: waiting, running, again (waiting to be started again), done, failed or stopped.
        code: How it ended last: an exit code, or 128 and a signal's number; None before.
        slot: The `gpus.Slot` where it is, or was last.
        starts: How often it was started.
        busy: How often its folder was in use.
        not_before: When it may be started again, by the monotonic clock.
        process: Its `Popen` while it is running.
    """

    run: object
    state: str = "waiting"
    code: int | None = None
    slot: object = None
    starts: int = 0
    busy: int = 0
    not_before: float = 0.0
    process: object = None

    @property
    def log(self):
        """Where its output goes."""
        return self.run.folder / "sweep.log"

    def progress(self):
        """How far it is.

        Returns:
            A dict of step, total_steps, epoch, accuracy (on the test split) and images_per_second, as far as they
            are known.
        """
        known = {}
        with contextlib.suppress(OSError):
            known = {"total_steps": _parsed((self.run.folder / "config.json").read_bytes()).get("total_steps")}
        for line in _tail(self.run.folder / "metrics.jsonl"):
            line = _parsed(line)
            known.update({name: line[name] for name in ("step", "epoch") if name in line})
            if line.get("split") == "eval":
                known["accuracy"] = line.get("accuracy")
            elif line.get("images_per_second"):
                known["images_per_second"] = line["images_per_second"]
        return known

    def ending(self):
        """How it ended and what it said of that, in a line."""
        lines = [line.decode(errors="replace").strip() for line in _tail(self.log)]
        begun = max((number for number, line in enumerate(lines) if line.startswith(_HEADER)), default=-1)
        lines = [line for line in lines[begun + 1:] if line]
        causes = [line for line in lines if line.startswith("lockstep: ") and "lockstep: warning: " not in line]
        said = (f": {causes[-1].removeprefix('lockstep: ')}" if causes else
                f"; its last line: {lines[-1]}" if lines else "")
        return f"{restart_policy.describe(self.code)}{said}"


def _parsed(line):
    """A JSON object; empty if it isn't whole."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _tail(path):
    """The last lines of a file, as bytes; none if it isn't there."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read().splitlines(keepends=True)
    except OSError:
        return []


class Sweep:
    """Runs jobs until all are done or failed, or somebody wants it to stop.

    Args:
        jobs: List of `Job`.
        slots: List of `gpus.Slot`: a run at a time on each.
        max_restarts: How often a run is started again.
        board: The `Board`; it hears what happens.
        changed: Called whenever a run ended.
    """

    def __init__(self, jobs, slots, max_restarts, board, changed):
        self._jobs, self._slots, self._max_restarts = jobs, slots, max_restarts
        self._board, self._changed = board, changed

    def run(self, stop):
        """Starts and watches the runs.

        Args:
            stop: The `StopRequest`. Once it is uttered, the runs are asked to stop, and saved.
        """
        asked = False
        try:
            while self._running() or (not asked and self._waiting()):
                for job in self._running():
                    if (code := job.process.poll()) is not None:
                        self._ended(job, code, asked)
                if stop.signal and not asked:
                    asked = True
                    self._board.asked(stop.signal)
                    self._stop()
                if not asked:
                    self._start()
                self._board.show()
                time.sleep(_TICK_SECONDS)
        finally:
            self._stop()  # of a sweep that can't go on
            for job in self._running():
                job.process.wait()

    def _running(self):
        return [job for job in self._jobs if job.state == "running"]

    def _waiting(self):
        return [job for job in self._jobs if job.state in ("waiting", "again")]

    def _stop(self):
        for job in self._running():
            job.process.terminate()

    def _start(self):
        """Starts the next runs where there is a free place."""
        taken = [job.slot for job in self._running()]
        free = [slot for slot in self._slots if slot not in taken]
        for job in self._waiting():
            if not free:
                break
            if job.not_before > time.monotonic():
                continue
            # Elsewhere than last time, if there is a choice: its GPU may be what failed.
            job.slot = next((slot for slot in free if slot != job.slot), free[0])
            free.remove(job.slot)
            job.process = start(job)
            job.state, job.starts = "running", job.starts + 1
            again = f", start {job.starts}" if job.starts > 1 else ""
            self._board.note(job, f"on {job.slot.name}{again}")

    def _ended(self, job, code, asked):
        """Takes note of how a run ended, and decides what follows."""
        job.code, job.process = (code if code >= 0 else 128 - code), None
        if code == 0:
            job.state = "done"
            self._board.note(job, f"done: {_outcome(job.run)}")
        elif asked and restart_policy.starts_again(code):
            job.state = "stopped"
            self._board.note(job, "stopped; it goes on when the sweep does")
        elif code == BusyError.code and job.busy < _MOST_BUSY:
            job.starts, job.busy = job.starts - 1, job.busy + 1
            self._again(job, _BUSY_SECONDS)
        elif restart_policy.starts_again(code) and job.starts <= self._max_restarts:
            self._again(job, min(_LONGEST_WAIT_SECONDS, 2.0 ** (job.starts - 1)))
        else:
            job.state = "failed"
            self._board.note(job, f"failed: it {job.ending()}")
        self._changed()

    def _again(self, job, seconds):
        job.state, job.not_before = "again", time.monotonic() + seconds
        self._board.note(job, f"{job.ending()}; it is started again in {seconds:.0f} s")


def start(job):
    """Starts a run's process on its slot; its output is added to its sweep.log.

    Args:
        job: The `Job`.

    Returns:
        The `Popen`.
    """
    job.run.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "trainer.main", *job.run.words]
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_A_JOB}
    with open(job.log, "ab") as log:
        log.write(f"{_HEADER}{datetime.now().astimezone().isoformat(timespec='seconds')}  {job.slot.name}  "
                  f"{' '.join(command[1:])}\n".encode())
        log.flush()
        # Of a session of its own: Ctrl-C is for the sweep, which asks each run to stop once.
        return subprocess.Popen([sys.executable, "-ISc", _TETHERED, str(os.getpid()), *command],
                                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                env={**inherited, **job.slot.environment})


def _outcome(run):
    done = results.figures(run)
    return f"accuracy {done['eval_accuracy']:.2%}, {done['wall_seconds'] or 0:,.0f} s" if done else "without a result"
