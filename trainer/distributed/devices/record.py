"""What a run computed on, for its checkpoints: where it is not the same on resume, last bits may differ."""

import ctypes
import os
import re
from pathlib import Path

from trainer.distributed.devices import machine

_MAPS = "/proc/self/maps"
_LIBRARIES = ("libcudnn", "libnccl", "libcublas", "libcudart", "libcuda")


def mapped_libraries(maps=_MAPS):
    """The files of CUDA's libraries that this process really has.

    Returns:
        A dict of name, such as libcudnn, to path.
    """
    found = {}
    try:
        text = Path(maps).read_text(errors="replace")
    except OSError:
        return found  # not Linux
    for path in re.findall(r"\s(/\S+\.so\S*)$", text, re.MULTILINE):
        name = Path(path).name.split(".so")[0]
        if name in _LIBRARIES:
            found[name] = path
    return found


def of(devices, kind, precision, libraries=None, environ=os.environ):
    """What decides the last bits of a run on this machine.

    Args:
        devices: What each physical device is, for people.
        kind: Their `DeviceKind`.
        precision: What is computed in.
        libraries: As `mapped_libraries`; None for this process's.
        environ: The environment.

    Returns:
        A dict of name to str: devices and precision; of GPUs the driver, the libraries that are in use by now, and
        the flags as well.
    """
    facts = {"devices": ", ".join(devices), "precision": precision}
    if not kind.cuda:
        return facts
    libraries = mapped_libraries() if libraries is None else libraries
    drivers = sorted({gpu.driver for gpu in machine.gpus(environ.get("CUDA_VISIBLE_DEVICES"))})
    facts |= {"driver": ", ".join(drivers) or "unknown", "CUDA of the driver": machine.spoken(machine.driver_cuda()),
              "XLA_FLAGS": _deciding_flags(environ.get("XLA_FLAGS", ""))}
    facts |= {name: version(libraries[library]) for name, library, version in
              (("cuDNN", "libcudnn", _cudnn), ("NCCL", "libnccl", _nccl)) if library in libraries}
    facts |= {name: environ[name] for name in sorted(environ) if re.fullmatch(r"NCCL_(ALGO|PROTO|NVLS_ENABLE)", name)}
    return facts


def differences(old, new):
    """A line for each fact that isn't what it was; nothing for those that one of the two doesn't have."""
    return [f"{name} was {old[name]}, now {new[name]}" for name in new if name in old and old[name] != new[name]]


def _deciding_flags(flags):
    """Without those that name files."""
    return " ".join(flag for flag in flags.split() if not re.search(r"_(dir|from|to)=", flag))


def _cudnn(path):
    try:
        call = ctypes.CDLL(path).cudnnGetVersion
    except (OSError, AttributeError):
        return "unknown"
    call.restype = ctypes.c_size_t
    number = call()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _nccl(path):
    version = ctypes.c_int()
    try:
        ctypes.CDLL(path).ncclGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return "unknown"
    return f"{version.value // 10000}.{version.value // 100 % 100}.{version.value % 100}"
