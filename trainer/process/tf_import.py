"""TensorFlow, imported without its log lines, and its errors as `LockstepError`s."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from trainer.errors import (
    BusyError,
    DeviceError,
    LockstepError,
    StorageError,
    UsageError,
    WorkerError,
    register_translator,
)
from trainer.process import gpu_environment, gpu_failures
from trainer.process.imports import collector_paused, keras_by_itself, left_out, settle

_SHOWN_LINES = 30
_NOISE = re.compile(r"oneDNN custom operations|cudart_stub|cpu_feature_guard|To enable the following|"
                    r"before absl::InitializeLog|^$")

several_workers = False  # set once the job is known to have more than one
_kept: list[str] = []  # what native code wrote


@contextlib.contextmanager
def _native_log_kept() -> Iterator[None]:
    """Keeps back what native code writes to stderr, unless the block fails.

    TensorFlow's libraries log lines while they are loaded and look for devices, whatever TF_CPP_MIN_LOG_LEVEL says,
    and on a healthy machine no such line asks the user to act. `native_messages` returns them when something fails
    later: the error of a cuDNN that doesn't fit says only "look at the errors above". A user who sets that variable
    sees the lines at once.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"  # read once: later warnings and errors are shown as they come
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            os.write(stderr, _read(file))
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            _kept.append(_read(file).decode(errors="replace"))
            del os.environ["TF_CPP_MIN_LOG_LEVEL"]  # child processes decide for themselves


def _read(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def native_messages() -> str:
    """What native code wrote while TensorFlow was imported and looked for devices; the last 30 lines, without noise."""
    lines = [line for text in _kept for line in text.splitlines() if not _NOISE.search(line)]
    return "\n".join(lines[-_SHOWN_LINES:])


gpu_environment.prepare()
with _native_log_kept(), collector_paused(), left_out("matplotlib"), keras_by_itself():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()
if problem := settle(keras):
    raise UsageError(problem, "start anew, and import trainer before anything that imports Keras")


def translate(error: BaseException) -> LockstepError | None:
    """The `LockstepError` that an error of TensorFlow's means.

    Args:
        error: Any exception.

    Returns:
        A `LockstepError`; None if the error isn't TensorFlow's, or only a defect of the program can cause it.
    """
    if not isinstance(error, tf.errors.OpError):
        return None
    line, text = reason(error), error.message  # pyright: ignore[reportAttributeAccessIssue]  TensorFlow has no types
    if "No space left" in text or "Disk quota" in text or isinstance(error, tf.errors.PermissionDeniedError):
        return StorageError(f"reading or writing failed: {line}",
                            "make room, or fix the permissions, then run the same command again; checkpoints that are "
                            "written are kept")
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return UsageError(f"out of memory: {line}", "use more GPUs, or end what else uses the memory; training takes "
                          "less with a lower --batch_size (in another --model_dir: a run with checkpoints keeps its "
                          "own)")
    if "gRPC server" in text:
        return BusyError(f"this worker's port can't be used: {line}",
                         "end what uses it, or use another port in TF_CONFIG (under Slurm: LOCKSTEP_PORT)")
    return _of_workers(error, text, line) if several_workers else _of_gpus(text, line)


def _of_gpus(text: str, line: str) -> DeviceError | UsageError | None:
    """The failure of a GPU that a message and its most telling line describe, or None."""
    failure = gpu_failures.name(text, line)
    if failure and (messages := native_messages()):
        failure.details = f"TensorFlow's libraries said:\n{messages}"
    return failure


def _of_workers(error: tf.errors.OpError, text: str, line: str) -> LockstepError | None:
    """The failure, in a job of several workers, that a message and its most telling line describe, or None."""
    if "NCCL" in text:
        return WorkerError(f"GPUs lost each other: {line}",
                           "start all workers again; they go on from the last checkpoint")
    if gpu_failure := _of_gpus(text, line):
        return gpu_failure
    if isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
                          tf.errors.CancelledError)):
        lost_workers = _lost_workers(text)
        failure = WorkerError(lost_workers or f"another worker is gone: {line}",
                              "start all workers again; they go on from the last checkpoint")
        failure.stood_at = error.__traceback__ if lost_workers else None
        return failure
    return None


register_translator(translate)


def _lost_workers(text: str) -> str | None:
    """The sentence that names the workers that TensorFlow's coordination service misses; None if it misses none."""
    listed = re.search(r"stopped sending heartbeats\):((?:\s|\\n|/job:worker/replica:\d+/task:\d+)+)", text)
    if listed:
        ranks = sorted(set(map(int, re.findall(r"task:(\d+)", listed[1]))))
        workers = f"worker{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
        return f"{workers} stopped answering: stopped, cut off, or its machine is gone"
    if "CoordinationService/Heartbeat" in text:
        return "worker 0, the chief, stopped answering: stopped, cut off, or its machine is gone"
    return None


def reason(error: tf.errors.OpError) -> str:
    """What a TensorFlow error says went wrong, without the stack that TensorFlow prints around it.

    Returns:
        A line of at most 200 characters.
    """
    lines = [line.strip() for line in error.message.splitlines()]
    stack = [index for index, line in enumerate(lines) if line.startswith("File ")]
    causes = [line for line in lines[stack[-1] + 1 if stack else 0:] if line and line != "Graph execution error:"]
    text = causes[0] if causes else type(error).__name__
    return re.sub(r"\{\{.*?\}\} ?|\[Op:.*?\]", "", text)[:200].strip()
