"""What a run computed on, for its checkpoints: if a resumed run computes on something else, last bits may differ."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.distributed.devices import machine

if TYPE_CHECKING:
    from trainer.device_kind import DeviceKind

_MAPS = "/proc/self/maps"
_LIBRARIES = ("libcudnn", "libnccl", "libcublas", "libcudart", "libcuda")


def mapped_libraries(maps: Path | str = _MAPS) -> dict[str, str]:
    """The files of CUDA's libraries that this process has loaded.

    Args:
        maps: The file in which the system lists them.

    Returns:
        A dict of name, such as libcudnn, to path.
    """
    libraries = {}
    try:
        text = Path(maps).read_text(errors="replace")
    except OSError:
        return libraries  # not Linux
    for path in re.findall(r"\s(/\S+\.so\S*)$", text, re.MULTILINE):
        name = Path(path).name.split(".so")[0]
        if name in _LIBRARIES:
            libraries[name] = path
    return libraries


def of(devices: Sequence[str], kind: DeviceKind, precision: str, libraries: Mapping[str, str] | None = None,
       environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What decides the last bits of a run on this machine.

    Args:
        devices: The human-readable name of each physical device.
        kind: What the kind of the devices implies.
        precision: float32, bfloat16 or float16.
        libraries: As `mapped_libraries` returns them; None for those of this process.
        environ: The environment.

    Returns:
        A dict of human-readable names to values: devices and precision; for GPUs also the driver, the libraries that
        are loaded so far, and the flags.
    """
    record = {"devices": ", ".join(devices), "precision": precision}
    if not kind.cuda:
        return record
    libraries = mapped_libraries() if libraries is None else libraries
    drivers = sorted({gpu.driver for gpu in machine.gpus(environ.get("CUDA_VISIBLE_DEVICES"))})
    record |= {"driver": ", ".join(drivers) or "unknown", "CUDA of the driver": machine.spoken(machine.driver_cuda()),
               "XLA_FLAGS": _deciding_flags(environ.get("XLA_FLAGS", ""))}
    record |= {name: version(libraries[library]) for name, library, version in
               (("cuDNN", "libcudnn", _cudnn), ("NCCL", "libnccl", _nccl)) if library in libraries}
    record |= {name: environ[name] for name in sorted(environ) if re.fullmatch(r"NCCL_(ALGO|PROTO|NVLS_ENABLE)", name)}
    return record


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """A line for each name that both records have with different values."""
    return [f"{name} was {old[name]}, now {new[name]}" for name in new if name in old and old[name] != new[name]]


def _deciding_flags(flags: str) -> str:
    """XLA's flags without those that name files."""
    return " ".join(flag for flag in flags.split() if not re.search(r"_(dir|from|to)=", flag))


def _cudnn(path: str) -> str:
    try:
        call = ctypes.CDLL(path).cudnnGetVersion
    except (OSError, AttributeError):
        return "unknown"
    call.restype = ctypes.c_size_t
    version = call()
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"


def _nccl(path: str) -> str:
    version = ctypes.c_int()
    try:
        ctypes.CDLL(path).ncclGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return "unknown"
    return f"{version.value // 10000}.{version.value // 100 % 100}.{version.value % 100}"
