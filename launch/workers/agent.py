"""Runs one worker on its machine, for a launcher that may be on another one: `python -m launch.workers.agent`.

The launcher talks through stdin and stdout, a JSON object a line; the same over a pipe and over ssh.

    to the agent      {"port": 0}                     find a free port, or say whether that one is free
                      {"start": {words, env, …}}      see `_Agent._start`
                      {"signal": "SIGTERM"}           to the worker
                      the end of the stream           stop the worker: no launcher watches it any more
    from the agent    {"port": 40123}
                      {"out": line}, {"err": line}    what the worker prints
                      {"ended": code, "state": …}     and how it ended; state T: it had been stopped (SIGSTOP)
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from launch.workers.child_process import prepare_child
from trainer.distributed.wire import bind
from trainer.process.libraries.children import command_of

_STOP_SECONDS = 15.0
_DRAIN_SECONDS = 3.0


class _Agent:
    """The launcher's side of a worker: obeys its orders and reports what the worker prints and how it ends."""

    def __init__(self) -> None:
        self._speaking = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None
        self._state: str | None = None  # "T" once the worker was found stopped
        self._held: socket.socket | None = None  # keeps the port until the worker starts

    def say(self, **message: Any) -> None:
        """Sends a message to the launcher; drops it if the launcher is gone."""
        with self._speaking, contextlib.suppress(OSError, ValueError):
            print(json.dumps(message), flush=True)

    def obey(self) -> None:
        """Does what the launcher orders until the launcher is gone."""
        for line in sys.stdin:
            order = json.loads(line)
            if "port" in order:
                self._find_port(order["port"])
            elif "start" in order:
                self._start(**order["start"])
            elif self._worker:
                self._signal(self._worker, signal.Signals[order["signal"]])
        self._stop()

    def _find_port(self, wanted: int) -> None:
        """Finds a port and holds it until the worker starts, so that no other worker is given the same."""
        try:
            self._held = bind(wanted, reuse=bool(wanted))
            self.say(port=self._held.getsockname()[1])
        except OSError as error:
            self.say(port=None, why=error.strerror)

    def _start(self, words: Sequence[str], env: Mapping[str, str], cwd: str | None = None, out: int | None = None,
               cpus: Collection[int] = ()) -> None:
        """Starts the trainer.

        Args:
            words: The trainer's arguments.
            env: Variables that are added to this process's environment.
            cwd: The folder where the trainer runs; None for this process's own.
            out: A file descriptor that this process inherited, for the trainer's stdout; None: to the launcher, line
                by line.
            cpus: The cores that the trainer may use; empty for all.
        """
        if cwd:
            os.chdir(cwd)
        assert self._held is not None  # the launcher asks for a port first
        self._held.close()
        worker = self._worker = subprocess.Popen(
            [*command_of("trainer.main"), *words], env={**os.environ, **env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if out is None else out, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=functools.partial(prepare_child, cpus), text=True, errors="replace", bufsize=1)
        readers = [threading.Thread(target=self._read, args=(name, stream), daemon=True)
                   for name, stream in (("out", worker.stdout), ("err", worker.stderr)) if stream]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._wait, args=(worker, readers)).start()

    def _read(self, name: str, stream: Iterable[str]) -> None:
        for line in stream:
            self.say(**{name: line.rstrip("\n")})

    def _wait(self, worker: subprocess.Popen[str], readers: Iterable[threading.Thread]) -> None:
        code = worker.wait()
        with contextlib.suppress(OSError):
            os.killpg(worker.pid, signal.SIGKILL)  # the processes that the worker started
        for reader in readers:
            reader.join(_DRAIN_SECONDS)
        self.say(ended=code, state=self._state)
        os._exit(0)

    def _signal(self, worker: subprocess.Popen[str], signum: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            self._state = self._state or _stopped(worker.pid)
            # A stopped process receives nothing. The job went on without it, so it must not go on: it shows its stacks
            # and ends.
            worker.send_signal(signal.SIGABRT if self._state and signum == signal.SIGTERM else signum)
            if self._state:
                worker.send_signal(signal.SIGCONT)  # the signal before it is delivered first

    def _stop(self) -> None:
        if not self._worker:
            os._exit(0)
        self._signal(self._worker, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._worker.wait(_STOP_SECONDS)
        self._signal(self._worker, signal.SIGKILL)


def _stopped(pid: int) -> str | None:
    """"T" if a process is stopped by SIGSTOP or a debugger, else None; None also where that can't be seen."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return "T" if file.read().rpartition(")")[2].split()[0] in "Tt" else None
    except OSError:
        return None


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the launcher's end of the pipe decides
    _Agent().obey()
