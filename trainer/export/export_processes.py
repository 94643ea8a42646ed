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
from typing import IO, Any, cast

from trainer.errors import StorageError

_LAST_SECONDS = 3600.0  # in which the processes must end after all images have been written to them


class ExportProcesses:
    """A process that imports TensorFlow, and then forks one for each export (measure_script.py).

    It may start before the exports are written, so that TensorFlow is imported meanwhile. Use it as a context
    manager, which ends all its processes.

    Args:
        names: The formats.
        on_gpu: Whether they may use the GPU; otherwise they see none.

    Attributes:
        pipes: For each format, where its images are written to.
    """

    def __init__(self, names: Sequence[str], on_gpu: bool = False) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="lockstep-")
        # A copy that is started in its own folder: the package isn't on that process's path.
        script = shutil.copy(Path(__file__).with_name("measure_script.py"), self._scratch.name)
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(
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
        """Tells the processes where the exports lie."""
        tasks = {name: [str(path.resolve()), self._readers[name]] for name, path in paths.items()}
        with contextlib.suppress(BrokenPipeError):  # `answers` says why
            assert self._process.stdin is not None  # a pipe
            self._process.stdin.write(json.dumps(tasks).encode())
            self._process.stdin.close()

    def answers(self, between_pieces: Callable[[], None]) -> dict[str, dict[str, Any]]:
        """Waits until all have ended, after all images were written and the pipes closed.

        Args:
            between_pieces: Called now and then while they work.

        Returns:
            Format to what measure_script.py found.

        Raises:
            StorageError: if one failed, or hangs.
        """
        deadline = time.monotonic() + _LAST_SECONDS
        while True:
            try:
                self._process.wait(timeout=0.05)
                break
            except subprocess.TimeoutExpired:
                between_pieces()
                if time.monotonic() > deadline:
                    name = next(name for name in self.pipes if not self._path(f"{name}.json").exists())
                    raise StorageError(f"the {name} export was given all images and did not end in "
                                       f"{_LAST_SECONDS:.0f} s", f"leave {name} out of --export, or check why its "
                                       "process hangs") from None
        assert self._process.stdout is not None  # a pipe
        codes = json.loads(self._process.stdout.read() or b"{}")
        return {name: self._answer(name, codes.get(name, self._process.returncode)) for name in self.pipes}

    def _answer(self, name: str, code: int) -> dict[str, Any]:
        if code:
            own = self._path(f"{name}.err")
            lines = (own if own.exists() else self._path("script.err")).read_text(errors="replace").strip().splitlines()
            last = (lines or ["no message"])[-1]
            raise StorageError(f"the {name} export can't be loaded again (exit {code}): {last[:300]}",
                               f"leave {name} out of --export; the checkpoints hold the model")
        return json.loads(self._path(f"{name}.json").read_text())

    def _path(self, name: str) -> Path:
        return Path(self._scratch.name) / name
