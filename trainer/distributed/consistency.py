"""What must be the same on all workers of a job before they begin. No TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import UsageError
from trainer.process.user_code import folder_first

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.distributed.devices.choice import Devices

_LOCATION_FLAGS = ("model_dir", "data_dir")  # paths may differ from machine to machine
_PACKAGES = ("tensorflow", "keras", "numpy")
_MOST_DIFFERENCES = 20  # in a message
_PACKAGE = Path(__file__).parents[1]


def fingerprint_of(config: Config, devices: Devices | None = None) -> dict[str, Any]:
    """The fingerprint of what this worker would train with.

    Args:
        config: The settings.
        devices: The chosen devices; None if choosing them failed.

    Returns:
        A dict of human-readable names to what JSON can hold.
    """
    fingerprint: dict[str, Any] = {"Lockstep's code": _hash(_PACKAGE)}
    fingerprint |= {package: _version(package) for package in _PACKAGES}
    settings = json.loads(config.to_json())
    fingerprint |= {f"--{name}": value for name, value in settings.items() if name not in _LOCATION_FLAGS}
    for name in (config.model, config.dataset):
        if ":" in name and not name.startswith(("tfds:", "keras:")):
            fingerprint[f"the code of {name}"] = _hash_module(name.split(":")[0])
    if devices:
        fingerprint |= {"devices": list(devices.names), "precision": devices.precision, "XLA": devices.xla}
    return fingerprint


def require_equal(fingerprints: Sequence[Mapping[str, Any]]) -> None:
    """Makes sure that all workers have the same fingerprint.

    Args:
        fingerprints: Each worker's, by worker.

    Raises:
        UsageError: with each difference and which workers have which value.
    """
    lines = differences(fingerprints)
    if lines:
        more = [f"and {len(lines) - _MOST_DIFFERENCES:,} more"] if len(lines) > _MOST_DIFFERENCES else []
        raise UsageError(["the workers of a job must be alike; these are not:", *lines[:_MOST_DIFFERENCES], *more],
                         "start all of them with the same code, flags, data and kind of machine")


def differences(fingerprints: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each name whose value isn't the same on all workers."""
    lines = []
    for name in sorted({name for fingerprint in fingerprints for name in fingerprint}):
        holders: dict[str, list[int]] = {}
        for worker, fingerprint in enumerate(fingerprints):
            holders.setdefault(json.dumps(fingerprint.get(name)), []).append(worker)
        if len(holders) > 1:
            lines.append(f"{name}: " + "; ".join(f"{value[:80]} on {_workers(ranks)}"
                                                 for value, ranks in holders.items()))
    return lines


def _workers(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
    return f"worker{'s' if len(ranks) > 1 else ''} {shown}"


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # builds of TensorFlow go by other names
        return importlib.metadata.version(package)
    return None


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _hash_module(name: str) -> str | None:
    try:
        with folder_first():
            spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return None
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]
    except (ImportError, AttributeError, TypeError, ValueError, OSError):
        return None  # the import of the module, later, names the problem
