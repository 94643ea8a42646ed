"""What the formats need beside TensorFlow and Keras, and the extra that brings it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from trainer.errors import UsageError

# Format to the modules that write and measure it; the extra has the format's name.
_MODULES = {"onnx": ("tf2onnx", "onnx", "onnxruntime"), "openvino": ("openvino",)}


def require_libraries(formats: Sequence[str]) -> None:
    """Makes sure that what formats need is installed; imports nothing.

    Args:
        formats: Names of formats.

    Raises:
        UsageError: with the command that installs what is missing.
    """
    lacking = {name: missing for name in formats
               if (missing := [module for module in _MODULES.get(name, ()) if not importlib.util.find_spec(module)])}
    if lacking:
        raise UsageError([f"--export={name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
                          "not installed" for name, missing in lacking.items()],
                         f"pip install 'lockstep-trainer[{','.join(lacking)}]', or leave the format out")
