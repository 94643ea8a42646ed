"""One worker of a job as its launcher sees it: an agent at the other end of a pipe."""

import collections
import contextlib
import json
import subprocess
import sys
import threading
import time

from launch import restart_policy
from trainer.errors import WorkerError

_DRAIN_SECONDS = 2.0
_LEAVE_SECONDS = 25.0  # longer than an agent gives its worker to save
_KEPT = 40  # lines of what a worker said last
_NEWS = ("lockstep: warning:", "lockstep: SIG")  # what people should see of a worker's stderr while it runs


class Worker:
    """See the module.

    Args:
        number: Its number in the job.
        label: Where it runs, for people.
        command: The words that start its agent, locally or through ssh.
        log: The path of its log, to which is added.
        events: A queue: (this, name, value) of everything the agent says is put there, last of all "ended".
        terminal: A file descriptor that the agent inherits, so that the worker can write to it; None for none.

    Attributes:
        code: How it ended; None while it runs.
        ended_at: When, by the monotonic clock.
        how: The same in a few words.
        stopped: Whether it was found stopped by SIGSTOP, or nothing could end it.
        lost: Whether its agent, or the way there, is gone.
    """

    def __init__(self, number, label, command, log, events, terminal=None):
        self.number, self.label, self._events = number, label, events
        self.code = self.ended_at = self.how = None
        self.stopped = self.lost = False
        self._said = collections.deque(maxlen=_KEPT)
        self._log = open(log, "a", encoding="utf-8")  # noqa: SIM115  closed when the worker has ended
        self._agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
                                       pass_fds=() if terminal is None else (terminal,))
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_errors, self._read)]
        for reader in self._readers:
            reader.start()

    def send(self, **order):
        """Tells the agent something; without effect if it is gone."""
        with contextlib.suppress(OSError, ValueError):
            self._agent.stdin.write(json.dumps(order) + "\n")
            self._agent.stdin.flush()

    def start(self, **how):
        """Lets the agent start the trainer; `how` is for `launch.workers.agent`."""
        self.note(f"---- {time.strftime('%Y-%m-%d %H:%M:%S')}: worker {self.number} on {self.label} starts")
        self.send(start=how)

    def note(self, line):
        """Adds a line to the worker's log."""
        with contextlib.suppress(OSError, ValueError):  # a full disk ends the workers; it needn't end who watches
            self._log.write(line + "\n")
            self._log.flush()

    def give_up(self):
        """Stops waiting for a worker that not even SIGKILL ends: it hangs in the system, or its agent does."""
        if self.code is None:
            self._agent.kill()
            self.stopped = True
            self._end(WorkerError.code, "doesn't end, not even by SIGKILL: it hangs in its machine's system")

    def leave(self):
        """Lets go of the agent, which ends what it started."""
        with contextlib.suppress(OSError, ValueError):
            self._agent.stdin.close()

    def close(self):
        """Ends the agent, too, if it is still there."""
        self.leave()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._agent.wait(_LEAVE_SECONDS)
        self._agent.kill()
        self._agent.wait()
        for reader in self._readers:
            reader.join(_DRAIN_SECONDS)
        for stream, reader in zip((self._agent.stderr, self._agent.stdout), self._readers, strict=True):
            if not reader.is_alive():  # else somebody else holds the other end, and closing would wait for that
                stream.close()
        self._log.close()

    def last_words(self):
        """Why it ended, as it said itself: its last error and all below that; else its last lines."""
        said = list(self._said)
        starts = [place for place, line in enumerate(said)
                  if line.startswith("lockstep: ") and not line.startswith(_NEWS)]
        return said[starts[-1]:] if starts else said[-12:]

    def _read(self):
        for line in self._agent.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                self.note(line.rstrip("\n"))  # somebody else's words, such as a login's
                continue
            for name, value in said.items() if isinstance(said, dict) else ():
                self._take(name, value, said)
        if self.code is None:
            code = self._agent.wait()
            self._readers[0].join(_DRAIN_SECONDS)  # what it said last explains it
            self.lost = True
            self._end(WorkerError.code, f"was lost: what connects to it {restart_policy.describe(code)}")

    def _take(self, name, value, said):
        if name in ("out", "err"):
            self.note(value)
            if name == "err":
                self._said.append(value)
                name = "news" if value.startswith(_NEWS) else None
            if name:
                self._events.put((self, name, value))
        elif name == "port":
            self._events.put((self, "port", said))
        elif name == "ended":
            self.stopped = said.get("state") == "T"
            how = "was stopped, and made the others wait" if self.stopped else restart_policy.describe(value)
            self._end(value, how)

    def _end(self, code, how):
        self.how, self.ended_at = how, time.monotonic()
        self.code = WorkerError.code if self.stopped else code
        self._events.put((self, "ended", code))
        self.note(f"---- it {how}")  # last: the log may lie on a file system that hangs

    def _read_errors(self):
        for line in self._agent.stderr:  # the agent's own, or ssh's
            self.note(line.rstrip("\n"))
            self._said.append(line.rstrip("\n"))


def agent_command():
    """The words that start an agent on this machine."""
    return [sys.executable, "-m", "launch.workers.agent"]
