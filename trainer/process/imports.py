"""Imports of large libraries, without the garbage collector, which would look through all that they define."""

from __future__ import annotations

import contextlib
import gc
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
