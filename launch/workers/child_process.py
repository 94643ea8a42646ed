"""Processes that don't outlive who started them, and keep to their share of the machine."""

import contextlib
import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1  # prctl(2)


def prepare_child(cpus=()):
    """Asks Linux to end this process when its parent is gone, and to keep it on some cores; for `preexec_fn`.

    Args:
        cpus: Numbers of cores; none for all. Where the system can do neither, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpus:
            os.sched_setaffinity(0, cpus)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # what the parent ignores, its children would ignore, too


def raise_file_limit():
    """Lets this process have as many files open as the system allows; each worker takes a few."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
