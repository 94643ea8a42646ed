"""A process beside the run that talks to the outside: what it waits for, the training doesn't.

It hears lines of JSON on its input, and answers with lines of JSON. It has its own session, so that no signal of a
terminal reaches it, and it outlives this process: the end of its input tells it that this process is gone, however it
went.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trainer.process.libraries.children import command_of

_NICENESS = 10


class Companion:
    """Starts the process; no method raises, or waits for longer than it says.

    Args:
        module: What the process runs, such as trainer.reporting.trackers.script.
        task: What it is told first: a JSON object. It goes through a pipe, where no other user sees it.
        answer: Called in a thread with each answer, a dict.
    """

    def __init__(self, module: str, task: Mapping[str, Any], answer: Callable[[dict[str, Any]], object]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # two threads tell
        try:
            self._process = subprocess.Popen(command_of(module), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:  # no process is left, or no memory
            answer({"warning": f"no process could be started ({error.strerror})"})
            return
        assert self._process.stdin and self._process.stdout  # pipes
        os.set_blocking(self._process.stdin.fileno(), False)
        self._reader = threading.Thread(target=self._read, args=(answer,), daemon=True, name="companion")
        self._reader.start()
        self.tell(**task)

    def tell(self, **message: Any) -> None:
        """Sends a message; one that finds the pipe full, because the process is stuck, is dropped."""
        if self._process and self._process.stdin:
            with self._lock, contextlib.suppress(OSError, ValueError):
                os.write(self._process.stdin.fileno(), json.dumps(message).encode() + b"\n")

    def finish(self, seconds: float) -> bool:
        """Ends the input, and waits for the process to end.

        Args:
            seconds: How long, at most; afterwards it goes on without this process.

        Returns:
            Whether it has ended.
        """
        if not self._process or not self._process.stdin:
            return True
        with self._lock, contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(1.0)
        return True

    def _read(self, answer: Callable[[dict[str, Any]], object]) -> None:
        assert self._process and self._process.stdout
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                answer(json.loads(line))


def messages(patience: float) -> Iterator[dict[str, Any]]:
    """In the process of a `Companion`: the messages, as they come, until the input ends.

    What the process prints otherwise goes nowhere; `reply` answers.

    Args:
        patience: Seconds after the end of the input at which the process ends itself,
            whatever it waits for.
    """
    global _answers
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    _answers = os.dup(1)
    os.dup2(2, 1)
    received: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(received, patience), daemon=True).start()
    while (message := received.get()) is not None:
        yield message


def reply(**answer: Any) -> None:
    """In the process of a `Companion`: answers, if anybody listens."""
    with contextlib.suppress(OSError):
        os.write(_answers, json.dumps(answer).encode() + b"\n")


_answers = 1


def _receive(received: queue.SimpleQueue[dict[str, Any] | None], patience: float) -> None:
    for line in sys.stdin.buffer:
        with contextlib.suppress(ValueError):
            received.put(json.loads(line))
    received.put(None)
    limit = threading.Timer(patience, os._exit, [1])
    limit.daemon = True
    limit.start()
