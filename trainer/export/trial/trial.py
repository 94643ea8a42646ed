"""Tries the exports beside the first steps, so that a format that can't hold the model is told at once.

A process of its own, with low priority and on the CPU, builds the model untrained, writes it in each format and loads
it again as the end of the run will. The training doesn't wait for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from typing import IO, TYPE_CHECKING

from trainer.errors import UsageError
from trainer.process.libraries.children import command_of

if TYPE_CHECKING:
    from trainer.plan import Job

_DELAY_SECONDS = 3.0  # a run that is over sooner is told by its exports


class ExportTrial:
    """The trial of a start's exports.

    Args:
        job: What the run trains.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._due = job, time.monotonic() + _DELAY_SECONDS
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._scratch: str | None = None  # of the process, which may be killed: removed here
        self._ended = not job.config.formats

    def check(self) -> list[str]:
        """Starts the trial once it is due, and says what it found; called between calls of the device loop.

        Returns:
            A sentence for each format that can't hold the model; empty before the trial has ended, and after that.

        Raises:
            UsageError: if a format that `--export` names can't hold the model.
        """
        if self._ended or time.monotonic() < self._due:
            return []
        if self._process is None:
            self._start()
        if self._process is None or self._process.poll() is None:
            return []
        self._ended = True
        failures = self._failures()
        if self._process.returncode or failures is None:
            return [f"the exports were not tried: the process that does so ended with {self._process.returncode}; they "
                    "are measured at the end"]
        sentences = [f"the {name} export of this model {why}" for name, why in failures.items()]
        rest = ",".join(name for name in self._job.config.formats if name not in failures) or "none"
        if failures and self._job.config.export is not None:
            raise UsageError(sentences, f"--export={rest}, or change the model; Keras has to find every layer and "
                             "operation again in the file")
        return [f"{sentence}; the run will end with 74, --export={rest} leaves it out" for sentence in sentences]

    def close(self) -> None:
        """Ends the trial if it is still under way."""
        self._ended = True
        if self._process and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # and what it started
            self._process.wait()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
        for stream in (self._output, self._process and self._process.stdin):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()

    def _start(self) -> None:
        config, data = self._job.config, self._job.data
        task = {"model": config.model, "classes": list(data.classes), "image_shape": list(data.image_shape),
                "resize": config.resize, "formats": list(config.formats)}
        try:
            self._scratch = tempfile.mkdtemp(prefix="lockstep-trial-")
            self._output = tempfile.TemporaryFile()  # noqa: SIM115  `close` closes it
            self._process = subprocess.Popen(
                command_of("trainer.export.trial.script"), stdin=subprocess.PIPE, stdout=self._output,
                stderr=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TMPDIR": self._scratch})
            assert self._process.stdin is not None  # a pipe; it stays open: its end tells the process of ours
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # no room, no process: the end of the run measures in any case
            self._ended = self._process is None

    def _failures(self) -> dict[str, str] | None:
        """Format to why it can't hold the model; None if the process didn't say."""
        assert self._output is not None  # the process was started
        self._output.seek(0)
        with contextlib.suppress(ValueError):
            answer = json.loads(self._output.read())
            return {str(name): str(why) for name, why in answer.items()}
        return None
