"""One run of a sweep as a process: how it is started, how far it is, how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from launch import restart_policy
from launch.gpus import Slot
from launch.sweep.grid import Run
from trainer.process.libraries.children import command_of

_TAIL_BYTES = 1 << 16
_HEADER = "--- "  # before the output of a start
# A run is one process, also where the sweep itself is a task of a larger job.
_VARIABLES_OF_A_JOB = ("TF_CONFIG", "SLURM_STEP_ID")
# Becomes the run's process, on the slot's cores, after a request to Linux to send it SIGTERM when the sweep's process
# ends for any reason.
# Not done between fork and exec: there, in a process with threads, few calls are allowed.
_TETHERED = """
import ctypes, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_DFL)
try:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if sys.argv[2]:
        os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
except (OSError, AttributeError):
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[3], sys.argv[3:])
"""


@dataclasses.dataclass
class Job:
    """A run, and how it stands.

    Args:
        run: The run.
        state: waiting, running, again (waiting to be started again), done, failed or stopped.
        code: How the run ended last: an exit code, or 128 and a signal's number; None before its first end.
        slot: The slot on which the run is, or was last; None before its first start.
        starts: How often the run was started.
        busy: How often the run's folder was in use.
        not_before: When the run may be started again, by the monotonic clock, in seconds.
        process: The run's process while it is running, else None.
    """

    run: Run
    state: str = "waiting"
    code: int | None = None
    slot: Slot | None = None
    starts: int = 0
    busy: int = 0
    not_before: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The file that the run's output is added to."""
        return self.run.folder / "sweep.log"

    def start(self, slot: Slot) -> None:
        """Starts the run's process on a slot; its output is added to `log`.

        Raises:
            OSError: if the run's folder or log can't be written.
        """
        self.slot = slot
        self.run.folder.mkdir(parents=True, exist_ok=True)
        command = [*command_of("trainer.main"), *self.run.words]
        inherited = {name: value for name, value in os.environ.items() if name not in _VARIABLES_OF_A_JOB}
        with open(self.log, "ab") as log:
            log.write(f"{_HEADER}{datetime.now().astimezone().isoformat(timespec='seconds')}  {slot.name}  "
                      f"{' '.join(['-m trainer.main', *self.run.words])}\n".encode("utf-8", "surrogateescape"))
            log.flush()
            # In a session of its own: Ctrl-C is for the sweep, which asks each run to stop once.
            tethered = [sys.executable, "-ISc", _TETHERED, str(os.getpid()), ",".join(map(str, slot.cores))]
            self.process = subprocess.Popen([*tethered, *command],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                            start_new_session=True, env={**inherited, **slot.environment})
        self.state, self.starts = "running", self.starts + 1

    def progress(self) -> dict[str, Any]:
        """How far the run is.

        Returns:
            A dict of step, total_steps, epoch, accuracy (of the evaluated split) and images_per_second, as far as they
            are known.
        """
        known: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            known = {"total_steps": _parse((self.run.folder / "config.json").read_bytes()).get("total_steps")}
        for line in _tail(self.run.folder / "metrics.jsonl"):
            metrics = _parse(line)
            known.update({name: metrics[name] for name in ("step", "epoch") if name in metrics})
            if metrics.get("split") == "eval":
                known["accuracy"] = metrics.get("accuracy")
            elif metrics.get("images_per_second"):
                known["images_per_second"] = metrics["images_per_second"]
        return known

    def ending(self) -> str:
        """How the run ended, and its message about that, in a line; only for a run that has ended."""
        lines = [line.decode(errors="replace").strip() for line in _tail(self.log)]
        header = max((index for index, line in enumerate(lines) if line.startswith(_HEADER)), default=-1)
        lines = [line for line in lines[header + 1:] if line]
        causes = [line for line in lines if line.startswith("lockstep: ") and "lockstep: warning: " not in line]
        message = (f": {causes[-1].removeprefix('lockstep: ')}" if causes else
                   f"; its last line: {lines[-1]}" if lines else "")
        assert self.code is not None
        return f"{restart_policy.describe(self.code)}{message}"


def _parse(line: bytes) -> dict[str, Any]:
    """A JSON object; empty if the line is not a whole one."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _tail(path: Path) -> list[bytes]:
    """The last lines of a file; empty if there is no file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read().splitlines(keepends=True)
    except OSError:
        return []
