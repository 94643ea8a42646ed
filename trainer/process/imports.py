"""Imports of large libraries, without what takes long and serves nobody here."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

may_freeze = True  # not in another program's process: what is garbage there must still be found



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
        if may_freeze:
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


# Neither a file named keras.json nor a variable decides what Keras computes: below this path there can be no file.
KERAS_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}


@contextlib.contextmanager
def keras_by_itself() -> Iterator[None]:
    """Around Keras's first import, which reads its settings from the user's home and from variables.

    They may be another program's: other types, another order of axes, another library below, or text that is none.
    """
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("KERAS_")}
    os.environ.update(KERAS_ENVIRONMENT)
    try:
        yield
    finally:
        del os.environ["KERAS_HOME"]
        os.environ.update(before | {"KERAS_BACKEND": "tensorflow"})


def keras_home() -> Path:
    """Keras's folder for downloads, by Keras's own rule: KERAS_HOME, else in the home, else in /tmp."""
    home = os.path.expanduser("~")
    if not os.access(home, os.W_OK) and not os.path.isdir(os.path.join(home, ".keras")):
        home = "/tmp"
    return Path(os.environ.get("KERAS_HOME") or os.path.join(home, ".keras"))


def settle(keras: Any) -> str | None:
    """Gives Keras its own defaults, also where it was imported before this program, and the folder for downloads.

    Args:
        keras: The module.

    Returns:
        What is wrong with it, or None.
    """
    if keras.config.backend() != "tensorflow":
        return f"Keras was imported before this program, and computes with {keras.config.backend()}"
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    with contextlib.suppress(OSError):  # Keras downloads to /tmp where there is none
        keras_home().mkdir(parents=True, exist_ok=True)
    keras.src.backend.config._KERAS_DIR = str(keras_home())
    return None
