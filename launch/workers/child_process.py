"""Processes that end with their parent, and keep to their share of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Collection

_PR_SET_PDEATHSIG = 1  # prctl(2)


def prepare_child(cpus: Collection[int] = ()) -> None:
    """Asks Linux to end this process when its parent is gone, and to keep it on some cores; for `preexec_fn`.

    Args:
        cpus: The cores' numbers; empty for all. Where the system can do neither, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpus:
            os.sched_setaffinity(0, cpus)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)  # a signal that the parent ignores would be ignored by its children, too


def raise_file_limit() -> None:
    """Lets this process have as many files open as the system allows; each worker takes a few."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
