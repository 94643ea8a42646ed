"""Versions of this program and of the libraries below it, from what the installer wrote; nothing is imported."""

from __future__ import annotations

import importlib.metadata
import platform
import re

from trainer import __version__

# What the tests ran with. Private methods of Keras are overridden, and TensorFlow's behaviour is relied on.
TESTED = {"tensorflow": "2.21.0", "keras": "3.15.1"}


def installed(name: str) -> str | None:
    """The version of an installed distribution; None if it isn't installed.

    Args:
        name: Such as tensorflow, which nightly builds and builds for one kind of device have, too.
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def sentence() -> str:
    """What `--version` prints: a line for each of the program, Python and the libraries."""
    lines = [f"lockstep {__version__}", f"Python {platform.python_version()}"]
    return "\n".join(lines + [f"{name} {installed(name) or 'is not installed'}" for name in TESTED])


def warnings() -> list[str]:
    """A sentence for each library that is newer than what was tested."""
    found = {name: version for name in TESTED if (version := installed(name))}
    return [f"{name} {version} is newer than {TESTED[name]}, with which this version was tested: it may compute "
            f"otherwise or fail (pip install {name}=={TESTED[name]})"
            for name, version in found.items() if _numbers(version) > _numbers(TESTED[name])]


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: 2.22.0rc1 is (2, 22, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
