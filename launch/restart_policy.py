"""What follows from how a worker ended. The codes are those of trainer/errors.py; the launchers share this table."""

import signal

from trainer.errors import DeviceError, Stopped, WorkerError

AGAIN = (DeviceError.code, WorkerError.code, Stopped.code)


def starts_again(code):
    """Whether a job is to be started again.

    Args:
        code: How its first failing worker ended: an exit code, or minus a signal's number; shells and remote
            machines tell of signals as 128 and their number.

    Returns:
        A bool: True for lost devices, lost workers, requests to stop, and death by a signal.
    """
    return code in AGAIN or code < 0 or 128 < code < 192


def describe(code):
    """How a process ended, in a few words."""
    number = -code if code < 0 else code - 128 if 128 < code < 192 else None
    if number is None:
        return f"ended with {code}"
    try:
        return f"was ended by {signal.Signals(number).name}"
    except ValueError:
        return f"was ended by signal {number}"
