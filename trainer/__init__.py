"""Lockstep: trains image classifiers on one GPU, several, or several machines. See README.md.

    from trainer import Config, train

    result = train(Config(model="resnet20", model_dir="runs/mine"))

Importing this package imports no TensorFlow; the call does.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

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
