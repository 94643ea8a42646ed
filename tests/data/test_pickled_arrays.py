"""Pickles from anywhere: arrays come out as NumPy pickled them, all else is refused, nothing crashes."""

import contextlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data import pickled_arrays

VALUE = {b"data": np.arange(24, dtype=np.uint8).reshape(2, 12), b"labels": [3, 1], "fortran": np.asfortranarray(
    np.arange(6, dtype=">i4").reshape(2, 3)), b"more": np.array([-1, 2**40])}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_out_as_they_went_in(tmp_path, protocol):
    (tmp_path / "x").write_bytes(pickle.dumps(VALUE, protocol))
    read = pickled_arrays.read(tmp_path / "x")
    assert read["labels"] == [3, 1]
    for name in ("data", "more", "fortran"):
        wanted = VALUE.get(name, VALUE.get(name.encode()))
        assert read[name].dtype == wanted.dtype and np.array_equal(read[name], wanted)


def called(module, name, arguments):
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


def array(arguments):
    return called("numpy", "ndarray", arguments)


def dtype(arguments):
    return called("numpy", "dtype", arguments)


OBJECTS = array(b"((I1\ntS'O'\nS'AAAAAAAA'\nt")  # an array whose element is a pointer to anywhere
CLEARED = dtype(b"(S'O8'\nI00\nI01\nt") + b"(I3\nS'|'\nNNNI8\nI8\nI0\ntb"  # flags that hide that it holds objects
RECONSTRUCTED = called("numpy.core.multiarray", "_reconstruct", b"(cnumpy\nndarray\n(I0\ntS'b'\nt")
HOSTILE = {
    "an array of objects as a shape": array(b"(" + OBJECTS + b"S'u1'\nt") + b".",
    "more memory than there is": array(b"((L4000000000L\ntS'u1'\nt") + b".",
    "flags of a type": array(b"(" + RECONSTRUCTED + b"(I1\n(I1\nt" + CLEARED + b"I00\nS'AAAAAAAA'\ntbS'u1'\nt") + b".",
    "a state without bytes": b"(dS'data'\n" + RECONSTRUCTED + b"(I1\n(I9\nt" + dtype(b"(S'u1'\nI0\nI1\nt") +
    b"I00\nS'AA'\ntbs.",
    "an array of pointers": b"(dS'data'\n" + RECONSTRUCTED + b"(I1\n(I1\nt" + dtype(b"(S'O8'\nI0\nI1\nt") +
    b"I00\nS'AAAAAAAA'\ntbs.",
    "a number with a negative side": b"(dS'data'\n" + RECONSTRUCTED + b"(I1\n(I-2\nI-1\nt" + dtype(b"(S'u1'\nI0\nI1\nt")
    + b"I00\nS'AA'\ntbs.",
    "a memo of two thousand million": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a frame of everything": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "a function": b"cos\nsystem\n(S'touch hurt'\ntR.",
    "a module's attribute": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch hurt\x85R.",
    "an extension": b"\x80\x02\x82\x01.", "a persistent id": b"Pabc\n.", "nothing": b"", "not a dict": b"I1\n.",
    "a type that was never called": b"\x80\x02}U\x04data" + RECONSTRUCTED + b"(I1\nI1\n\x85cnumpy\ndtype\n)\x81I00\nU"
    b"\x01Atbs.", "an array that was never called": b"\x80\x02}U\x04datacnumpy\nndarray\n)\x81s.",
    "a class of its own": b"(i__main__\nX\n."}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_hostile_pickle_asks_for_is_not_done(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(HOSTILE[name])
    with pytest.raises(ValueError):
        pickled_arrays.read(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(protocol=st.integers(0, 5),
       changes=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6)), max_size=4))
def test_any_change_of_a_pickle_is_read_or_refused(tmp_path, protocol, changes):
    data = bytearray(pickle.dumps(VALUE, protocol))
    for place, value in changes:
        data[place % len(data):place % len(data) + len(value)] = value
    (tmp_path / "x").write_bytes(data)
    with contextlib.suppress(ValueError):
        assert isinstance(pickled_arrays.read(tmp_path / "x"), dict)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_no_more_memory_than_the_file_explains(tmp_path, name):
    """In a process of its own that may have 512 MiB beyond what its imports took."""
    (tmp_path / "x").write_bytes(HOSTILE[name])
    code = ("import pathlib, resource, sys\nfrom trainer.data import pickled_arrays\n"
            "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + 2**29\n"
            "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
            "try:\n    pickled_arrays.read(pathlib.Path(sys.argv[1]))\nexcept MemoryError:\n    sys.exit('memory')\n"
            "except ValueError:\n    sys.exit(0)\n")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x"], env=environment(), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
