"""TensorFlow, imported without its chatter, and what its errors are in our terms."""

import contextlib
import os
import re
import sys
import tempfile

from trainer.errors import BusyError, StorageError, UsageError, WorkerError, register_translator
from trainer.process import gpu_environment, gpu_failures

_SHOWN_LINES = 30
_NOISE = re.compile(r"oneDNN custom operations|cudart_stub|cpu_feature_guard|To enable the following|"
                    r"before absl::InitializeLog|^$")

several_workers = False  # set once the job is known to have more than one
_kept = []


@contextlib.contextmanager
def _native_chatter_kept():
    """Keeps back what native code writes to stderr, unless the block fails.

    TensorFlow's libraries log lines while they are loaded and look for devices, whatever TF_CPP_MIN_LOG_LEVEL says,
    and on a healthy machine nothing in them is for the user to act on. `native_messages` has them for when something
    fails later: a cuDNN that doesn't fit is told as "look at the errors above". Somebody who sets that variable wants
    to see them at once.
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
            del os.environ["TF_CPP_MIN_LOG_LEVEL"]  # what this process starts decides for itself


def _read(file):
    file.seek(0)
    return file.read()


def native_messages():
    """What native code said while TensorFlow was imported and looked for devices; the last lines, without noise."""
    lines = [line for text in _kept for line in text.splitlines() if not _NOISE.search(line)]
    return "\n".join(lines[-_SHOWN_LINES:])


gpu_environment.prepare()
with _native_chatter_kept():
    import tensorflow as tf

    tf.config.list_physical_devices()


def translate(error):
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
        return StorageError(f"writing failed: {said}", "make room or repair the folder; earlier checkpoints are kept")
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return UsageError(f"out of memory: {said}", "lower --batch_size, or use more GPUs")
    if "gRPC server" in text:
        return BusyError(f"this worker's port can't be used: {said}",
                         "end what uses it, or name another in TF_CONFIG (under Slurm: LOCKSTEP_PORT)")
    return _of_workers(error, said, text) if several_workers else _of_gpus(text, said)


def _of_gpus(text, said):
    found = gpu_failures.name(text, said)
    if found:
        found.details = native_messages()
    return found


def _of_workers(error, said, text):
    if "NCCL" in text:
        return WorkerError(f"GPUs lost each other: {said}",
                           "start all workers again; they go on from the last checkpoint")
    if found := _of_gpus(text, said):
        return found
    if isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
                          tf.errors.CancelledError)):
        silent = _who_is_gone(text)
        found = WorkerError(silent or f"another worker is gone: {said}",
                            "start all workers again; they go on from the last checkpoint")
        found.stood_at = error.__traceback__ if silent else None
        return found
    return None


register_translator(translate)


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
