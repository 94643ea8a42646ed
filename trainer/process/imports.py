"""Imports of large libraries, without what takes long and serves nobody here."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Around imports; what they made is left out of all later collections, too.

    TensorFlow and Keras define some 400,000 objects that live as long as the process: without collections in between
    the imports take four fifths of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def left_out(name: str) -> Iterator[None]:
    """Around imports of libraries that import another one if it is there, and do without it if it isn't.

    Keras imports all of Matplotlib for two functions that show images: a seventh of a start.

    Args:
        name: The other library's; within the block it looks as if it weren't installed, unless it is loaded already.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]  Python's own mark of what can't be imported
    try:
        yield
    finally:
        if sys.modules.get(name, name) is None:
            del sys.modules[name]
