"""Processes of this package's modules, whatever lies in the folder that they are started in."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[3]
# What `python -m` does, but for the current folder on the path: a trainer.py or keras.py there is another program's.
# This package's folder comes after those of PYTHONPATH, which the user chose, and before all that is installed.
_PROGRAM = ("import os, sys; sys.path[:1] == [''] and sys.path.pop(0); root = sys.argv.pop(1); "
            "first = len([*filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))]); "
            "root in sys.path or sys.path.insert(first, root); import runpy; "
            "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)")


def command_of(module: str) -> list[str]:
    """The command that runs a module of this package as `python -m` would; its arguments follow.

    Args:
        module: Such as trainer.main.
    """
    return [sys.executable, "-c", _PROGRAM, str(_ROOT), module]
