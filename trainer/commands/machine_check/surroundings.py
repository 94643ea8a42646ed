"""What a run needs besides devices: a disk, and the limits that the system sets this process."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from trainer.errors import StorageError
from trainer.process.host import cores

_TRIED_BYTES = 32 * 2**20
_SLOW_DISK, _LITTLE_ROOM = 20e6, 2e9  # bytes/s; bytes: checkpoints, exports and TensorBoard of a run of ResNet-50
_FEW_FILES, _LITTLE_MEMORY = 1024, 3 * 2**30
_LITTLE_SHARED = 2**28
_SHARED_MEMORY_FIX = ("NCCL's GPUs may talk through it, and need more: docker run --shm-size=1g; in Kubernetes an "
                      "emptyDir with medium: Memory")
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Verdict(NamedTuple):
    """What was looked at.

    Args:
        sentence: What was found.
        trouble: Why that is too little, and the way out; "" if it is enough.
        ends_runs: Whether no run would start with it.
    """

    sentence: str
    trouble: str = ""
    ends_runs: bool = False

    def lines(self) -> list[str]:
        """As `doctor` prints it."""
        return [self.sentence, *([f"warning: {self.trouble}"] if self.trouble and not self.ends_runs else [])]

    def check(self) -> None:
        """Checks whether a run would start.

        Raises:
            StorageError: if it wouldn't.
        """
        if self.ends_runs:
            cause, _, fix = self.trouble.partition(": ")
            raise StorageError(f"{self.sentence}; {cause}", fix)


def disk(folder: Path | str) -> Verdict:
    """Room and speed of the disk of a folder: writes 32 MiB where the folder is or would be, and removes them.

    Args:
        folder: The folder, which needn't exist.
    """
    existing = Path(folder).absolute()
    while not existing.is_dir():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < 2 * _TRIED_BYTES:
        return Verdict(f"disk of {existing}: {free / 1e9:,.2f} GB free",
                       "that is no room for a checkpoint: make room, or use another --model_dir", True)
    block = os.urandom(2**20)  # random: a disk that compresses would be timed at nothing
    try:
        began = time.perf_counter()
        with tempfile.TemporaryFile(dir=existing) as file:
            for _ in range(_TRIED_BYTES // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Verdict(f"disk of {existing}: {free / 1e9:,.1f} GB free",
                       f"nothing can be written there ({error.strerror}): use another --model_dir", True)
    rate = _TRIED_BYTES / (time.perf_counter() - began)
    trouble = ("a checkpoint would take its time: use a --model_dir on a local disk" if rate < _SLOW_DISK else
               "a run's checkpoints and exports may not fit: make room" if free < _LITTLE_ROOM else "")
    return Verdict(f"disk of {existing}: {free / 1e9:,.1f} GB free, writes {rate / 1e6:,.0f} MB/s", trouble)


def open_files() -> Verdict:
    """How many files this process may have open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return Verdict("any number of open files")
    return Verdict(f"{files:,} open files at a time",
                   "TensorFlow, shards and pipes may need more: ulimit -n 65536" if files < _FEW_FILES else "")


def shared_memory(folder: Path | str = "/dev/shm") -> Verdict:
    """The shared memory through which several GPUs talk where they have no other way."""
    try:
        size = shutil.disk_usage(folder).total
    except OSError as error:
        return Verdict(f"{folder} can't be used: {error.strerror}", _SHARED_MEMORY_FIX)
    return Verdict(f"{folder} holds {size / 2**20:,.0f} MiB", _SHARED_MEMORY_FIX if size < _LITTLE_SHARED else "")


def memory() -> Verdict:
    """The memory that this process may use: the machine's, or what a container leaves it."""
    free = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in _read("/proc/meminfo").splitlines()
            if line.endswith("kB")}.get("MemAvailable", 0)
    allowed = [int(text) for path in _CGROUP_LIMITS if (text := _read(path).strip()).isdecimal()]
    limit = min((each for each in allowed if each < 2**50), default=None)
    held = f", of which this container may use {limit / 2**30:,.1f}" if limit else ""
    usable = min(free, limit or free)
    return Verdict(f"{cores()} core{'s' if cores() > 1 else ''}, {free / 2**30:,.1f} GiB of memory free{held}",
                   "TensorFlow and a data set in memory may need more: stop other programs, or raise the limit"
                   if 0 < usable < _LITTLE_MEMORY else "")


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
