"""Pipes that end this process when a byte is written into them, whatever holds Python's interpreter lock.

POSIX's asynchronous reads may call a function in a thread of the C library's own when they are done; here it is
`_exit`. No Python code runs for that. Only where the C library is glibc on a 64-bit machine, whose structures are
spelled out below; elsewhere there are no such pipes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
from typing import Any

_SIGEV_THREAD = 2
_PRIVATE = 256  # bytes, more than glibc keeps behind the fields that are spelled out
_armed: list[tuple] = []  # what the C library points to, for as long as the process lives


class _SigEvent(ctypes.Structure):
    _fields_ = [("value", ctypes.c_uint64), ("number", ctypes.c_int), ("notify", ctypes.c_int),
                ("function", ctypes.c_void_p), ("attributes", ctypes.c_void_p), ("padding", ctypes.c_char * 32)]


class _ReadControl(ctypes.Structure):
    """struct aiocb of aio.h."""

    _fields_ = [("descriptor", ctypes.c_int), ("operation", ctypes.c_int), ("priority", ctypes.c_int),
                ("buffer", ctypes.c_void_p), ("size", ctypes.c_size_t), ("event", _SigEvent),
                ("private", ctypes.c_char * _PRIVATE)]


def is_supported() -> bool:
    """Whether this process can have such pipes."""
    return (sys.platform == "linux" and sys.maxsize > 2**32 and sys.byteorder == "little"
            and platform.libc_ver()[0] == "glibc")


def _aio_read() -> Any:
    """The C library's function; glibc before 2.34 has it in a library of its own."""
    for library in (None, "librt.so.1"):
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.CDLL(library).aio_read
    return None


@functools.cache
def arm(code: int) -> int:
    """Makes a pipe, once in a process: the read that waits on it can't be taken back.

    Args:
        code: The exit code that the process ends with when a byte is written.

    Returns:
        The descriptor to write to, inherited by no child; -1 where there can't be one.
    """
    if not is_supported():
        return -1
    aio_read = _aio_read()
    if aio_read is None:
        return -1
    reader, writer = os.pipe()
    buffer, control = ctypes.create_string_buffer(1), _ReadControl()
    control.descriptor, control.buffer, control.size = reader, ctypes.addressof(buffer), 1
    control.event.value, control.event.notify = code, _SIGEV_THREAD
    control.event.function = ctypes.cast(ctypes.CDLL(None)._exit, ctypes.c_void_p).value
    _armed.append((buffer, control))
    if aio_read(ctypes.byref(control)):
        os.close(reader)
        os.close(writer)
        return -1
    return writer
