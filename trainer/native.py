"""TensorFlow, imported without its chatter, and what its errors are in our terms."""

import contextlib
import os
import re
import sys
import tempfile

from trainer.devices.kind import GPU
from trainer.errors import BusyError, DeviceError, StorageError, UsageError, WorkerError

for _name, _value in GPU.environment.items():
    os.environ.setdefault(_name, _value)


@contextlib.contextmanager
def _without_native_chatter():
    """Keeps back what native code writes to stderr, unless the block fails.

    TensorFlow's libraries log lines while they are loaded, whatever TF_CPP_MIN_LOG_LEVEL says, and
    nothing in them is for the user to act on. Somebody who sets that variable wants to see them.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


with _without_native_chatter():
    import tensorflow as tf


def as_ours(error):
    """What an error of TensorFlow's is in our terms, if a user or the world can cause it.

    Args:
        error: Any exception.

    Returns:
        A `LockstepError`, or None.
    """
    if not isinstance(error, tf.errors.OpError):
        return None
    said, text = reason(error), error.message
    if "No space left" in text or "Disk quota" in text or isinstance(error, tf.errors.PermissionDeniedError):
        return StorageError(f"writing failed: {said}", "make room or mend the folder; earlier checkpoints are kept")
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return UsageError(f"out of memory: {said}", "lower --batch_size, or use more GPUs")
    if "gRPC server" in text:
        return BusyError(f"this worker's port can't be used: {said}",
                         "end what uses it, or name another in TF_CONFIG (under Slurm: LOCKSTEP_PORT)")
    if isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
                          tf.errors.CancelledError)):
        silent = _who_is_gone(text)
        found = WorkerError(silent or f"another worker is gone: {said}",
                            "start all workers again; they go on from the last checkpoint")
        found.stood_at = error.__traceback__ if silent else None
        return found
    if "NCCL" in text:
        return WorkerError(f"GPUs lost each other: {said}",
                           "start all workers again; they go on from the last checkpoint")
    if "CUDA_ERROR" in text or "device is lost" in text:
        return DeviceError(f"a GPU failed: {said}", "look at nvidia-smi, then run the same command again")
    return None


def _who_is_gone(text):
    """Names the workers that TensorFlow's coordination service misses, if it does."""
    listed = re.search(r"stopped sending heartbeats\):((?:\s|\\n|/job:worker/replica:\d+/task:\d+)+)", text)
    if listed:
        numbers = sorted(set(map(int, re.findall(r"task:(\d+)", listed[1]))))
        who = f"worker{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        return f"{who} stopped answering: stopped, cut off, or its machine is gone"
    if "CoordinationService/Heartbeat" in text:
        return "worker 0, the chief, stopped answering: stopped, cut off, or its machine is gone"
    return None


def reason(error):
    """What a TensorFlow error says went wrong, without the stack that it puts around that.

    Args:
        error: A `tf.errors.OpError`.

    Returns:
        A line of at most 200 characters.
    """
    lines = [line.strip() for line in error.message.splitlines()]
    stack = [number for number, line in enumerate(lines) if line.startswith("File ")]
    said = [line for line in lines[stack[-1] + 1 if stack else 0:] if line and line != "Graph execution error:"]
    text = said[0] if said else type(error).__name__
    return re.sub(r"\{\{.*?\}\} ?|\[Op:.*?\]", "", text)[:200].strip()
