"""What this process may use of its machine: cores, and the memory that it has freed."""

import contextlib
import ctypes
import functools
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def multiplies_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether the processor has instructions that multiply bfloat16, AVX512-BF16 or AMX, as Linux's file says."""
    try:
        with open(cpuinfo) as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags))


@functools.cache
def keep_freed_memory() -> None:
    """Keeps up to 256 MB of freed memory for the next request, where the C library is glibc.

    Left to itself it gives a batch's encoded images back to the system after each step, and takes fresh pages for the
    next: of the time in which records were read, four fifths went there.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**28)
        mallopt(_MMAP_THRESHOLD, 2**25)  # the most; the first setting ends its growth from use
