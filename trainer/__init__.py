"""Lockstep: trains image classifiers on one GPU, several, or several machines. See README.md.

    from trainer import Config, train

    result = train(Config(model="resnet20", model_dir="runs/mine"))

Importing this package imports no TensorFlow; the call does.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.errors import (
        BusyError,
        DataError,
        DeviceError,
        DivergedError,
        LockstepError,
        Stopped,
        StorageError,
        UsageError,
    )
    from trainer.library.call import train
    from trainer.library.result import Result

# `python -m` puts the current folder first on the path, and a keras.py or rich.py there is another program's.
with contextlib.suppress(FileNotFoundError):  # that folder is gone
    if sys.argv[:1] == ["-m"] and sys.path[0] != _ROOT and sys.path[0] == os.getcwd():
        sys.path.append(sys.path.pop(0))

# Keras runs on several libraries and reads which from the environment or a file in the home folder.
os.environ["KERAS_BACKEND"] = "tensorflow"

__version__ = "0.1.0"
__all__ = ["BusyError", "Config", "DataError", "DeviceError", "DivergedError", "LockstepError", "Result", "Stopped",
           "StorageError", "UsageError", "__version__", "train"]

_MODULES = {"Config": "trainer.config", "Result": "trainer.library.result"}


def __getattr__(name: str) -> Any:
    """Imports what `__all__` names when it is asked for: every part of this package comes through here."""
    if name == "train":  # the folder of that name, which can be called: see there
        return importlib.import_module("trainer.train")
    if name in __all__:
        return getattr(importlib.import_module(_MODULES.get(name, "trainer.errors")), name)
    raise AttributeError(f"module 'trainer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
