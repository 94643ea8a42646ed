"""Which exit codes start a job again. The codes are those of trainer/errors.py; all launchers share this table."""

from __future__ import annotations

import signal

from trainer.errors import DeviceError, Stopped, WorkerError

AGAIN = (DeviceError.code, WorkerError.code, Stopped.code)


def starts_again(code: int) -> bool:
    """Whether a job is to be started again: after lost devices, lost workers, requests to stop, death by a signal.

    Args:
        code: How the job's first failing worker ended: an exit code, or minus a signal's number; shells and remote
            machines report a signal as 128 and its number.
    """
    return code in AGAIN or code < 0 or 128 < code < 192


def describe(code: int) -> str:
    """How a process ended, in a few words.

    Args:
        code: As in `starts_again`.
    """
    signum = -code if code < 0 else code - 128 if 128 < code < 192 else None
    if signum is None:
        return f"ended with {code}"
    try:
        name = signal.Signals(signum).name
        return f"was ended by {name}" + (", as when memory runs out (dmesg tells)" if name == "SIGKILL" else "")
    except ValueError:
        return f"was ended by signal {signum}"
