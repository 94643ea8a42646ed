"""The GPUs of this machine as their driver tells of them, whether TensorFlow can use them or not. No TensorFlow."""

import ctypes
import dataclasses
import os
import re
import subprocess

_PATIENCE_SECONDS = 30.0
_FIELDS = "index,uuid,name,memory.total,driver_version"
_DRIVER_FILE = "/proc/driver/nvidia/version"


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU.

    Args:
        index, uuid, name: As nvidia-smi has them.
        memory_mib: All of its memory, in MiB.
        driver: Version of the driver.
    """

    index: str
    uuid: str
    name: str
    memory_mib: int
    driver: str


def gpus(visible=None):
    """The GPUs that a process may use.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None where it isn't set.

    Returns:
        A list of `Gpu`, in CUDA's order where `visible` names them; empty where nvidia-smi isn't there or fails. Parts
        of a GPU that is split (MIG) stand for the whole of it.
    """
    listed = [_gpu(line) for line in _ask(f"--query-gpu={_FIELDS}").splitlines()]
    listed = [gpu for gpu in listed if gpu]
    if visible is None:
        return listed
    chosen = []
    for word in map(str.strip, visible.split(",")):
        found = [gpu for gpu in listed if word == gpu.index or (word and gpu.uuid.startswith(word))]
        if not found and word.startswith("MIG"):
            found = _owner_of_part(word, listed)
        if not found:
            break  # CUDA, too, ignores what comes after a name that isn't known
        chosen += found[:1]
    return chosen


def has_driver():
    """Whether a driver of NVIDIA's is loaded."""
    return os.path.exists(_DRIVER_FILE)


def driver_cuda():
    """The newest CUDA that the driver can do, exactly as it says.

    Returns:
        1,000 × major + 10 × minor, such as 12050; None where there is no driver's library.
    """
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0:
            return version.value
    except (OSError, AttributeError):
        pass  # no driver, or one from before there was this function
    return None


def spoken(cuda):
    """A CUDA version for people: 12050 is 12.5."""
    return "unknown" if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}"


def _gpu(line):
    parts = [part.strip() for part in line.split(",")]
    if len(parts) == 5 and parts[3].isdecimal():
        return Gpu(parts[0], parts[1], parts[2], int(parts[3]), parts[4])
    return None


def _owner_of_part(word, listed):
    """The GPU that a MIG part belongs to."""
    owner = None
    for line in _ask("-L").splitlines():
        if found := re.match(r"GPU (\d+):", line):
            owner = found[1]
        elif word in line:
            return [gpu for gpu in listed if gpu.index == owner]
    return []


def _ask(words):
    """What nvidia-smi prints; nothing where it isn't there or fails."""
    more = [] if words == "-L" else ["--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(["nvidia-smi", words, *more], capture_output=True, text=True, errors="replace",
                              timeout=_PATIENCE_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout
