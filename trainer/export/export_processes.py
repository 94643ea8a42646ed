"""Processes that load exports and measure them: none of them has this package on its path."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

from trainer.process.imports import KERAS_ENVIRONMENT

_LAST_SECONDS = 3600.0  # in which the processes must end after all images have been written to them


class Measured(NamedTuple):
    """What was found of exports.

    Args:
        answers: Format to a dict of accuracy and examples, and latency as measure_script.py describes it; of the
            SavedModel also file_examples and file_differences: how many files `serve_bytes` was given, and of how many
            it said another class than of their pixels.
        failures: Format to why there is no such answer, in words that go on after the format's name.
    """

    answers: dict[str, dict[str, Any]]
    failures: dict[str, str]


class ExportProcesses:
    """A process that imports TensorFlow, and then forks one for each export (measure_script.py).

    It may start before the exports are written, so that TensorFlow is imported meanwhile. Use it as a context
    manager, which ends all its processes.

    Args:
        names: The formats.
        on_gpu: Whether they may use the GPU; otherwise they see none.
        timed: Whether their latency is measured, too: after all have answered for all images, one after the other.

    Attributes:
        pipes: For each format, where its images are written to.
    """

    def __init__(self, names: Sequence[str], on_gpu: bool = False, timed: bool = True) -> None:
        self._timed = timed
        self._scratch = tempfile.TemporaryDirectory(prefix="lockstep-")
        # A copy that is started in its own folder: the package isn't on that process's path.
        script = shutil.copy(Path(__file__).with_name("measure_script.py"), self._scratch.name)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
        environment = {**inherited, **KERAS_ENVIRONMENT, "TF_CPP_MIN_LOG_LEVEL": "3", **(
            {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if on_gpu else {"CUDA_VISIBLE_DEVICES": "-1"})}
        ends = {name: os.pipe() for name in names}
        self._readers = {name: reader for name, (reader, _) in ends.items()}
        self.pipes = {name: cast("IO[bytes]", os.fdopen(writer, "wb")) for name, (_, writer) in ends.items()}
        with open(self._path("script.err"), "wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, script, *names], cwd=self._scratch.name, env=environment, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=stderr, pass_fds=tuple(self._readers.values()),
                start_new_session=True)  # so that only this process receives Ctrl-C
        for reader in self._readers.values():
            os.close(reader)
        self._codes: dict[str, int] = {}  # of the processes that the script forked, once it has ended

    def __enter__(self) -> ExportProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # and those that it forked
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, *self.pipes.values()):
            with contextlib.suppress(BrokenPipeError):
                if stream:
                    stream.close()
        self._scratch.cleanup()

    def load(self, paths: Mapping[str, Path]) -> None:
        """Tells the processes where the exports lie.

        Args:
            paths: Format to path, of those that could be written; the other formats' pipes are closed.
        """
        for name in self.pipes.keys() - paths.keys():
            self.pipes.pop(name).close()
        tasks = {name: [str(path.resolve()), self._readers[name], self._timed] for name, path in paths.items()}
        with contextlib.suppress(BrokenPipeError):  # `answers` says why
            assert self._process.stdin is not None  # a pipe
            self._process.stdin.write(json.dumps(tasks).encode())
            self._process.stdin.close()

    def answers(self, between_pieces: Callable[[], None]) -> Measured:
        """Waits until all have ended, after all images were written and the pipes closed.

        Args:
            between_pieces: Called now and then while they work.

        Returns:
            What measure_script.py found of each export, and why others failed or were still busy after an hour.
        """
        deadline = time.monotonic() + _LAST_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            between_pieces()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.05)
        measured = Measured({}, {})
        for name in self.pipes:
            if (answer := self._path(f"{name}.json")).exists():
                measured.answers[name] = json.loads(answer.read_text())
            else:
                measured.failures[name] = self._failure(name)
        return measured

    def _failure(self, name: str) -> str:
        """Why there is no answer about an export, in a few words."""
        if self._process.poll() is None:
            return f"was given all images and did not end in {_LAST_SECONDS:.0f} s"
        assert self._process.stdout is not None  # a pipe
        self._codes = self._codes or json.loads(self._process.stdout.read() or b"{}")
        own = self._path(f"{name}.err")
        lines = (own if own.exists() else self._path("script.err")).read_text(errors="replace").strip().splitlines()
        last = (lines or ["no message"])[-1]
        return f"can't be loaded again (exit {self._codes.get(name, self._process.returncode)}): {last[:300]}"

    def write(self, name: str, kind: int, images: np.ndarray, *arrays: np.ndarray) -> None:
        """Gives an export's process a chunk; drops it if the process has died, which `answers` reports.

        Args:
            name: The format.
            kind: The kind of the chunk, as measure_script.py describes it.
            images: uint8 [n, height, width, channels].
            *arrays: What stands behind the images in a chunk of this kind.
        """
        with contextlib.suppress(BrokenPipeError):
            for array in (np.array([kind, *images.shape], np.int64), images, *arrays):
                self.pipes[name].write(np.ascontiguousarray(array).data)

    def close_pipes(self) -> None:
        """Tells the processes that they have been given everything."""
        for pipe in self.pipes.values():
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _path(self, name: str) -> Path:
        return Path(self._scratch.name) / name
