"""Reads the arrays of an untrusted pickle: a pickle is a program, and here it runs nothing of NumPy's.

NumPy's own ways to make an array from a pickle believe what the pickle says of shapes, types and flags, and so can be
made to follow any pointer, or to ask for any amount of memory. Here each is replaced by a stand-in that only keeps its
arguments; an array is made of plain bytes at the end, once shape, type and size are known to fit. Python's own
unpickler, not its C twin, because the latter grows its memo to any number that the file names.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES = 2**28  # of a file; the largest of CIFAR's has 155 MB
_TYPES = {"|u1", "|i1", *(f"{order}{kind}{size}" for order in "<>" for kind in "iu" for size in (2, 4, 8))}


class RefusedError(ValueError):
    """The pickle asks for something that a data file has no use for; it was not run."""


class _DType:
    """Stands for `numpy.dtype`."""

    code, order = "", "|"  # a pickle may make one without calling it

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code), "|"

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def resolve(self) -> np.dtype:
        order = "|" if self.code.endswith("1") else "<" if self.order == "=" else self.order
        name = order + self.code.lstrip("<>|=")
        if name not in _TYPES:
            raise ValueError(f"an array of {self.code!r}")
        return np.dtype(name)


class _Array:
    """Stands for a `numpy.ndarray` that `_reconstruct` made: its state comes afterwards."""

    shape: Any = None
    dtype: Any = None
    fortran: Any = False
    data: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def resolve(self) -> np.ndarray:
        if not isinstance(self.dtype, _DType) or not isinstance(self.data, (bytes, bytearray)):
            raise ValueError("an array without bytes")
        if not isinstance(self.shape, tuple) or not all(type(side) is int and side >= 0 for side in self.shape):
            raise ValueError("an array without a shape")
        dtype = self.dtype.resolve()
        if math.prod(self.shape) * dtype.itemsize != len(self.data):
            raise ValueError(f"an array of shape {list(self.shape[:4])} and {len(self.data):,} bytes")
        return np.frombuffer(bytes(self.data), dtype).reshape(self.shape, order="F" if self.fortran else "C")


class _NdArray:
    """Stands for the type `numpy.ndarray`, which `_reconstruct` takes and which makes nothing by itself."""


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _NdArray:
        raise ValueError("an array of another type")
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocols below 3 spell bytes."""
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


_STAND_INS = {("numpy", "ndarray"): _NdArray, ("numpy", "dtype"): _DType, ("_codecs", "encode"): _latin1}
for _package in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_package}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise RefusedError(f"the pickle asks for {module[:80]}.{name[:80]}") from None


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def read(path: Path) -> dict[str, Any]:
    """Reads a dict of arrays, numbers and lists.

    Args:
        path: The file.

    Returns:
        Its entries by name; arrays as `numpy.ndarray` of whole numbers, everything else as it is.

    Raises:
        OSError: if the file can't be read.
        RefusedError: if it asks for anything but arrays.
        ValueError: if it is not such a pickle.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes; {MOST_BYTES:,} is the most")
    try:
        value = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(value, dict):
            raise TypeError(f"it holds a {type(value).__name__}")
        return {_text(name): _resolved(entry) for name, entry in value.items() if isinstance(name, (str, bytes))}
    except (OSError, RefusedError):
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"not a pickle of arrays ({type(error).__name__}: {str(error)[:100]})") from None


def _resolved(entry: Any) -> Any:
    """What a stand-in stands for; anything else as it is."""
    if isinstance(entry, (_DType, _NdArray)):
        raise TypeError("a type where a value should be")
    return entry.resolve() if isinstance(entry, _Array) else entry
