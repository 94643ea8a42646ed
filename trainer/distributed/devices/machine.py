"""The GPUs of this machine as their driver describes them, whether TensorFlow can use them or not. No TensorFlow."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import subprocess
from collections.abc import Sequence

_PATIENCE_SECONDS = 30.0
_FIELDS = "index,uuid,name,memory.total,driver_version"
_DRIVER_FILE = "/proc/driver/nvidia/version"


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU.

    Args:
        index: Its index, as nvidia-smi prints it.
        uuid: Its UUID, such as GPU-5d3f….
        name: Its product name.
        memory_mib: The size of its memory, in MiB.
        driver: The version of the driver.
    """

    index: str
    uuid: str
    name: str
    memory_mib: int
    driver: str


def gpus(visible: str | None = None) -> list[Gpu]:
    """The GPUs that a process may use.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None if it isn't set.

    Returns:
        The GPUs, in CUDA's order if `visible` names them; empty if nvidia-smi is missing or fails. For a part of a GPU
        (MIG) the whole GPU is returned.
    """
    listed = [gpu for line in _ask(f"--query-gpu={_FIELDS}").splitlines() if (gpu := _gpu(line))]
    if visible is None:
        return listed
    chosen = []
    for word in map(str.strip, visible.split(",")):
        matches = [gpu for gpu in listed if word == gpu.index or (word and gpu.uuid.startswith(word))]
        if not matches and word.startswith("MIG"):
            matches = _owner_of_part(word, listed)
        if not matches:
            break  # CUDA, too, ignores what comes after a name that isn't known
        chosen += matches[:1]
    return chosen


def has_driver() -> bool:
    """Whether NVIDIA's driver is loaded."""
    return os.path.exists(_DRIVER_FILE)


def driver_cuda() -> int | None:
    """The newest CUDA version that the driver supports.

    Returns:
        1,000 × major + 10 × minor, such as 12050; None if the driver's library is missing.
    """
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0:
            return version.value
    except (OSError, AttributeError):
        pass  # no driver, or one that is older than this function
    return None


def spoken(cuda: int | None) -> str:
    """The human-readable form of a CUDA version: "12.5" for 12050."""
    return "unknown" if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}"


def _gpu(line: str) -> Gpu | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) == 5 and parts[3].isdecimal():
        return Gpu(parts[0], parts[1], parts[2], int(parts[3]), parts[4])
    return None


def _owner_of_part(word: str, listed: Sequence[Gpu]) -> list[Gpu]:
    """The GPU to which a part (MIG) belongs; empty if there is no such part."""
    owner = None
    for line in _ask("-L").splitlines():
        if match := re.match(r"GPU (\d+):", line):
            owner = match[1]
        elif word in line:
            return [gpu for gpu in listed if gpu.index == owner]
    return []


def _ask(option: str) -> str:
    """What nvidia-smi prints; "" if it is missing or fails."""
    more = [] if option == "-L" else ["--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(["nvidia-smi", option, *more], capture_output=True, text=True, errors="replace",
                              timeout=_PATIENCE_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout
