"""One worker of a job as its launcher sees it: an agent at the other end of a pipe."""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from launch import restart_policy
from trainer.errors import WorkerError
from trainer.process.libraries.children import command_of

_DRAIN_SECONDS = 2.0
_LEAVE_SECONDS = 25.0  # longer than an agent gives its worker to save
_LAST_LINES_KEPT = 40
_NEWS = ("lockstep: warning:", "lockstep: SIG")  # the lines of a worker's stderr that a user should see while it runs

Events = queue.Queue[tuple["Worker", str, Any]]


class Worker:
    """Starts the agent of one worker, sends it orders, and reads what it answers into a log and a queue.

    Args:
        rank: The worker's number in the job.
        label: Where the worker runs, as a user reads it.
        command: The command that starts the worker's agent, locally or through ssh.
        log: The path of the worker's log; lines are appended to it.
        events: A queue: (this, name, value) of everything the agent says is put there, last of all "ended".
        terminal: A file descriptor that the agent inherits, so that the worker can write to it; None for none.

    Attributes:
        code: How the worker ended; None while it runs.
        ended_at: When the worker ended, by the monotonic clock, in seconds; 0.0 while it runs.
        how: How the worker ended, in a few words; empty while it runs.
        stopped: Whether the worker was found stopped by SIGSTOP, or nothing could end it.
        lost: Whether the worker's agent, or the connection to it, is gone.
    """

    def __init__(self, rank: int, label: str, command: Sequence[str], log: Path, events: Events,
                 terminal: int | None = None) -> None:
        self.rank, self.label, self._events = rank, label, events
        self.code: int | None = None
        self.ended_at, self.how = 0.0, ""
        self.stopped = self.lost = False
        self._last_lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES_KEPT)
        self._log = open(log, "a", encoding="utf-8")  # noqa: SIM115  closed when the worker has ended
        self._agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
                                       pass_fds=() if terminal is None else (terminal,))
        self._stdin, self._stdout, self._stderr = (
            cast(TextIO, stream) for stream in (self._agent.stdin, self._agent.stdout, self._agent.stderr))
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_errors, self._read)]
        for reader in self._readers:
            reader.start()

    def send(self, **order: Any) -> None:
        """Sends an order to the agent; without effect if the agent is gone.

        Args:
            **order: One of the orders that launch/workers/agent.py lists.
        """
        with contextlib.suppress(OSError, ValueError):
            self._stdin.write(json.dumps(order) + "\n")
            self._stdin.flush()

    def start(self, **options: Any) -> None:
        """Lets the agent start the trainer.

        Args:
            **options: The arguments of `_Agent._start` in launch/workers/agent.py.
        """
        self.note(f"---- {time.strftime('%Y-%m-%d %H:%M:%S')}: worker {self.rank} on {self.label} starts")
        self.send(start=options)

    def note(self, line: str) -> None:
        """Adds a line to the worker's log."""
        with contextlib.suppress(OSError, ValueError):  # a full disk ends the workers; it needn't end their launcher
            self._log.write(line + "\n")
            self._log.flush()

    def give_up(self) -> None:
        """Stops waiting for a worker that not even SIGKILL ends: it hangs in the system, or its agent does."""
        if self.code is None:
            self._agent.kill()
            self.stopped = True
            self._end(WorkerError.code, "doesn't end, not even by SIGKILL: it hangs in its machine's system")

    def leave(self) -> None:
        """Lets go of the agent, which then ends the processes that it started."""
        with contextlib.suppress(OSError, ValueError):
            self._stdin.close()

    def close(self) -> None:
        """Lets go of the agent, and ends the agent if it is still there."""
        self.leave()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._agent.wait(_LEAVE_SECONDS)
        self._agent.kill()
        self._agent.wait()
        for reader in self._readers:
            reader.join(_DRAIN_SECONDS)
        for stream, reader in zip((self._stderr, self._stdout), self._readers, strict=True):
            if not reader.is_alive():  # else another process holds the other end, and closing would wait for it
                stream.close()
        self._log.close()

    def last_words(self) -> list[str]:
        """Why the worker ended, in its own words: its last error and all lines below it; else its last lines."""
        lines = list(self._last_lines)
        errors = [index for index, line in enumerate(lines)
                  if line.startswith("lockstep: ") and not line.startswith(_NEWS)]
        return lines[errors[-1]:] if errors else lines[-12:]

    def _read(self) -> None:
        for line in self._stdout:
            try:
                message = json.loads(line)
            except ValueError:
                self.note(line.rstrip("\n"))  # another program's, such as a login's greeting
                continue
            for name, value in message.items() if isinstance(message, dict) else ():
                self._take(name, value, message)
        if self.code is None:
            code = self._agent.wait()
            self._readers[0].join(_DRAIN_SECONDS)  # the agent's last lines explain its end
            self.lost = True
            self._end(WorkerError.code, f"was lost: its agent, or the ssh to it, {restart_policy.describe(code)}")

    def _take(self, name: str, value: Any, message: Mapping[str, Any]) -> None:
        if name == "out":
            self.note(value)
            self._events.put((self, "out", value))
        elif name == "err":
            self.note(value)
            self._last_lines.append(value)
            if value.startswith(_NEWS):
                self._events.put((self, "news", value))
        elif name == "port":
            self._events.put((self, "port", message))
        elif name == "ended":
            self.stopped = message.get("state") == "T"
            how = "was stopped, and made the others wait" if self.stopped else restart_policy.describe(value)
            self._end(value, how)

    def _end(self, code: int, how: str) -> None:
        self.how, self.ended_at = how, time.monotonic()
        self.code = WorkerError.code if self.stopped else code
        self._events.put((self, "ended", code))
        self.note(f"---- it {how}")  # last: the log may lie on a file system that hangs

    def _read_errors(self) -> None:
        for line in self._stderr:  # the agent's own, or ssh's
            self.note(line.rstrip("\n"))
            self._last_lines.append(line.rstrip("\n"))


def agent_command() -> list[str]:
    """The command that starts an agent on this machine."""
    return command_of("launch.workers.agent")
