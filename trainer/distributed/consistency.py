"""What must be the same on all workers of a job before they begin. No TensorFlow."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path

from trainer.errors import UsageError
from trainer.process.user_code import add_cwd_to_path

# Where things lie may differ from machine to machine.
_PLACES = ("model_dir", "data_dir")
_PACKAGES = ("tensorflow", "keras", "numpy")
_SHOWN = 20
_PACKAGE = Path(__file__).parents[1]


def fingerprint_of(config, devices=None):
    """What this worker would train with.

    Args:
        config: The run's `Config`.
        devices: The `Devices`; None if they are not available.

    Returns:
        A dict of names for people to what JSON can hold.
    """
    facts = {"Lockstep's code": _hash(_PACKAGE)}
    facts |= {package: _version(package) for package in _PACKAGES}
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    facts |= {f"--{name}": value for name, value in settings.items() if name not in _PLACES}
    for name in (config.model, config.dataset):
        if ":" in name and not name.startswith(("tfds:", "keras:")):
            facts[f"the code of {name}"] = _hash_module(name.split(":")[0])
    if devices:
        facts |= {"devices": list(devices.names), "precision": devices.precision, "XLA": devices.xla}
    return facts


def require_equal(told):
    """Makes sure that all workers have the same facts.

    Args:
        told: A dict of each worker's facts, in their order.

    Raises:
        UsageError: with each difference and who has what.
    """
    found = differences(told)
    if found:
        more = [f"and {len(found) - _SHOWN:,} more"] if len(found) > _SHOWN else []
        raise UsageError(["the workers of a job must be alike; these are not:", *found[:_SHOWN], *more],
                         "start all of them with the same code, flags, data and kind of machine")


def differences(told):
    """A line for each fact that isn't the same everywhere."""
    lines = []
    for name in sorted({name for facts in told for name in facts}):
        holders = {}
        for worker, facts in enumerate(told):
            holders.setdefault(json.dumps(facts.get(name)), []).append(worker)
        if len(holders) > 1:
            lines.append(f"{name}: " + "; ".join(f"{value[:80]} on {_workers(who)}" for value, who in holders.items()))
    return lines


def _workers(numbers):
    shown = ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
    return f"worker{'s' if len(numbers) > 1 else ''} {shown}"


def _version(package):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # builds of TensorFlow go by other names
        return importlib.metadata.version(package)


def _hash(folder):
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _hash_module(name):
    add_cwd_to_path()
    try:
        spec = importlib.util.find_spec(name)
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]
    except (ImportError, AttributeError, TypeError, ValueError, OSError):
        return None  # whoever imports it will say
