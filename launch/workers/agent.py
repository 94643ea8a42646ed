"""Runs one worker where it is to run, for a launcher that may be elsewhere: `python -m launch.workers.agent`.

The launcher talks through stdin and stdout, a JSON object a line; the same over a pipe and over ssh.

    to the agent      {"port": 0}                     find a free port, or say whether that one is free
                      {"start": {words, env, …}}      see `_Agent._start`
                      {"signal": "SIGTERM"}           to the worker
                      the end of the stream           stop the worker: nobody watches it any more
    from the agent    {"port": 40123}
                      {"out": line}, {"err": line}    what the worker says
                      {"ended": code, "state": …}     and how it ended; state T: it had been stopped (SIGSTOP)
"""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading

from launch.workers.child_process import prepare_child

_STOP_SECONDS = 15.0
_DRAIN_SECONDS = 3.0


class _Agent:
    def __init__(self):
        self._speaking = threading.Lock()
        self._worker = self._state = self._held = None

    def say(self, **what):
        with self._speaking, contextlib.suppress(OSError, ValueError):  # nobody may be there to hear it
            print(json.dumps(what), flush=True)

    def obey(self):
        """Does what the launcher says until there is nobody to say it."""
        for line in sys.stdin:
            order = json.loads(line)
            if "port" in order:
                self._find_port(order["port"])
            elif "start" in order:
                self._start(**order["start"])
            elif self._worker:
                self._signal(signal.Signals[order["signal"]])
        self._stop()

    def _find_port(self, wanted):
        """Finds a port and holds it until the worker starts, so that no other worker is given the same."""
        self._held = socket.socket()
        try:
            if wanted:  # it may be in the state in which a job before left it
                self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held.bind(("", wanted))
            self.say(port=self._held.getsockname()[1])
        except OSError as error:
            self._held.close()
            self.say(port=None, why=error.strerror)

    def _start(self, words, env, cwd=None, out=None, cpus=()):
        """Starts the trainer with some words, with additions to the environment, in a folder, its stdout going to a
        file descriptor that this process inherited (None: to the launcher, line by line), on some of the cores."""
        if cwd:
            os.chdir(cwd)
        self._held.close()
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "trainer.main", *words], env={**os.environ, **env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if out is None else out, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=functools.partial(prepare_child, cpus), text=True, errors="replace", bufsize=1)
        readers = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in
                   (("out", self._worker.stdout), ("err", self._worker.stderr)) if pair[1]]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._wait, args=(readers,)).start()

    def _read(self, name, stream):
        for line in stream:
            self.say(**{name: line.rstrip("\n")})

    def _wait(self, readers):
        code = self._worker.wait()
        with contextlib.suppress(OSError):
            os.killpg(self._worker.pid, signal.SIGKILL)  # what it had started
        for reader in readers:
            reader.join(_DRAIN_SECONDS)
        self.say(ended=code, state=self._state)
        os._exit(0)

    def _signal(self, number):
        with contextlib.suppress(OSError):
            self._state = self._state or _stopped(self._worker.pid)
            # What is stopped hears nothing. The job went on without it, so it must not: it shows its stacks and ends.
            self._worker.send_signal(signal.SIGABRT if self._state and number == signal.SIGTERM else number)
            if self._state:
                self._worker.send_signal(signal.SIGCONT)  # the signal before is the first thing that it meets

    def _stop(self):
        if not self._worker:
            os._exit(0)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._worker.wait(_STOP_SECONDS)
        self._signal(signal.SIGKILL)


def _stopped(pid):
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
