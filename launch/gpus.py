"""Which GPUs this machine has, as CUDA_VISIBLE_DEVICES names them. Asks nvidia-smi, not TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Iterable

from trainer.errors import DeviceError, first_few

_PATIENCE_SECONDS = 60.0
_NO_DEVICES = "No devices were found"


@dataclasses.dataclass(frozen=True)
class Slot:
    """The device or devices on which one run at a time is started.

    Args:
        name: As a user reads it: "GPU 0", "CPU 1".
        environment: The variables that a process on this slot gets in addition to its parent's.
        cores: The numbers of the cores that it may use; empty for all.
    """

    name: str
    environment: dict[str, str]
    cores: tuple[int, ...] = ()


def slots(gpus: str, gpus_per_run: int, count: int) -> tuple[list[Slot], int]:
    """The slots on which a sweep's runs are started.

    Args:
        gpus: "all" that are visible, "none", or a comma list of them.
        gpus_per_run: How many a run gets.
        count: How many slots; 0: as many as there are GPUs for, or one on a machine without.

    Returns:
        (the slots, how many GPUs each has: 0 if they are on the CPU).

    Raises:
        DeviceError: if there are fewer GPUs than asked for, if several parts of split GPUs (MIG) would go to one run,
            or if nvidia-smi fails.
    """
    names = chosen(gpus)
    if not names:
        if gpus_per_run > 1:
            raise DeviceError(f"--gpus_per_run={gpus_per_run} needs GPUs; nvidia-smi lists none that is visible",
                              "leave it out to run on the CPU")
        return [Slot(f"CPU {index}" if count > 1 else "CPU", {}) for index in range(max(1, count))], 0
    groups = [names[start:start + gpus_per_run] for start in range(0, len(names) - gpus_per_run + 1, gpus_per_run)]
    if not groups or count > len(groups):
        raise DeviceError(f"{max(1, count)} at a time with {gpus_per_run} GPU{'s' if gpus_per_run > 1 else ''} each "
                          f"need {max(1, count) * gpus_per_run} GPUs; there are: {first_few(names)}",
                          "ask for fewer: launch.local takes --num_workers and --gpus_per_worker (0: the CPU), "
                          "launch.sweep --slots and --gpus_per_run (--gpus=none: the CPU)")
    parts = [name for group in groups[:count or None] for name in group if name.startswith("MIG")]
    if gpus_per_run > 1 and parts:
        raise DeviceError(f"a process sees one part of a split GPU (MIG), whatever it is given; received "
                          f"{gpus_per_run} for each, and these are parts: {first_few(parts)}",
                          "give each one part: launch.sweep --gpus_per_run=1, launch.local --gpus_per_worker=1")
    # nvidia-smi counts in this order, CUDA in another one unless this variable is set.
    order = {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return [Slot(f"GPU {'+'.join(group)}", {"CUDA_VISIBLE_DEVICES": ",".join(group), **order})
            for group in groups[:count or None]], gpus_per_run


def chosen(gpus: str) -> list[str]:
    """The GPUs to use.

    Args:
        gpus: As in `slots`.

    Returns:
        Their names for CUDA_VISIBLE_DEVICES.

    Raises:
        DeviceError: if one of those that are named isn't visible, or if nvidia-smi fails.
    """
    if gpus == "none":
        return []
    available = visible(_listing(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if gpus == "all":
        return available
    names = [name.strip() for name in gpus.split(",")]
    if missing := [name for name in names if name not in available]:
        raise DeviceError(f"--gpus={gpus} names {', '.join(missing)}; visible: {', '.join(available) or 'none'}",
                          "name GPUs that are visible, or leave --gpus out to use all")
    return names


def lost(names: Iterable[str]) -> list[str]:
    """Those of some GPUs that nvidia-smi doesn't list.

    Args:
        names: As in CUDA_VISIBLE_DEVICES: numbers, or beginnings of UUIDs.

    Raises:
        DeviceError: if nvidia-smi fails.
    """
    listing = _listing()
    numbers = set(re.findall(r"^GPU (\d+):", listing, re.MULTILINE))
    uuids = re.findall(r"\(UUID: ([\w./-]+)\)", listing)
    return sorted(name for name in names
                  if name not in numbers and not any(uuid.startswith(name) for uuid in uuids))


def visible(listing: str, outer: str | None) -> list[str]:
    """The GPUs that a program may use.

    Args:
        listing: What `nvidia-smi -L` prints.
        outer: CUDA_VISIBLE_DEVICES, or None where it isn't set.

    Returns:
        Names for CUDA_VISIBLE_DEVICES: numbers, or the UUIDs of the parts of a GPU that is split.
    """
    numbers: list[str] = []
    uuids: list[str] = []
    names: list[str] = []
    for line in listing.splitlines():
        uuid = re.search(r"\(UUID: ([\w./-]+)\)", line)
        if gpu := re.match(r"GPU (\d+):", line):
            numbers.append(gpu[1])
            names.append(gpu[1])
        elif uuid and line.lstrip().startswith("MIG") and numbers:
            if names[-1] == numbers[-1]:
                names.pop()  # of a GPU that is split CUDA sees the parts
            names.append(uuid[1])
        if uuid:
            uuids.append(uuid[1])
    if outer is None:
        return names
    allowed: list[str] = []
    for name in map(str.strip, outer.split(",")):
        known = name in numbers if name.isdecimal() else name and any(uuid.startswith(name) for uuid in uuids)
        if not known:
            break  # CUDA, too, ignores what comes after a name that isn't known
        allowed.append(name)
    return allowed


def _listing() -> str:
    """What `nvidia-smi -L` prints; empty where there is no such program."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace",
                              timeout=_PATIENCE_SECONDS, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    except subprocess.TimeoutExpired:
        raise _failed(f"doesn't answer in {_PATIENCE_SECONDS:.0f} s") from None
    if done.returncode and _NO_DEVICES not in done.stdout + done.stderr:
        raise _failed(f"ends with {done.returncode}: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout


def _failed(how: str) -> DeviceError:
    return DeviceError(f"nvidia-smi -L {how}",
                       "repair the GPU's driver, or run on the CPU: --num_gpus=0, of a sweep --gpus=none")
