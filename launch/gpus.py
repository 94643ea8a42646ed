"""Which GPUs this machine has, as CUDA_VISIBLE_DEVICES names them. Asks nvidia-smi, not TensorFlow."""

import dataclasses
import os
import re
import subprocess

from trainer.errors import DeviceError

_PATIENCE_SECONDS = 60.0
_NONE = "No devices were found"


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place for one run at a time.

    Args:
        name: For people: "GPU 0", "CPU 1".
        environment: What a process there has in its environment besides.
    """

    name: str
    environment: dict


def slots(gpus, gpus_per_run, count):
    """The places that a sweep's runs are started on.

    Args:
        gpus: "all" that are visible, "none", or a comma list of them.
        gpus_per_run: How many a run gets.
        count: How many places; 0: as many as there are GPUs for, or one on a machine without.

    Returns:
        (list of `Slot`, how many GPUs each has: 0 if they are on the CPU).

    Raises:
        DeviceError: if there are fewer GPUs than asked for, they are parts that don't go together, or nvidia-smi
            fails.
    """
    names = chosen(gpus)
    if not names:
        if gpus_per_run > 1:
            raise DeviceError(f"--gpus_per_run={gpus_per_run} needs GPUs; nvidia-smi lists none that is visible",
                              "leave it out to run on the CPU")
        return [Slot(f"CPU {number}" if count > 1 else "CPU", {}) for number in range(max(1, count))], 0
    groups = [names[at:at + gpus_per_run] for at in range(0, len(names) - gpus_per_run + 1, gpus_per_run)]
    if not groups or count > len(groups):
        asked = f" --slots={count}" if count else ""
        raise DeviceError(f"--gpus_per_run={gpus_per_run}{asked} needs {max(1, count) * gpus_per_run} GPUs; there are: "
                          f"{', '.join(names)}", "ask for less; --gpus=none runs on the CPU")
    parts = [name for group in groups[:count or None] for name in group if name.startswith("MIG")]
    if gpus_per_run > 1 and parts:
        raise DeviceError(f"--gpus_per_run={gpus_per_run}: a process sees one part of a split GPU (MIG), whatever it "
                          f"is given; these are parts: {', '.join(parts)}",
                          "give each one part: --gpus_per_run=1; for launch.local --gpus_per_worker=1")
    # nvidia-smi counts in this order, CUDA in another unless it is told.
    order = {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return [Slot(f"GPU {'+'.join(group)}", {"CUDA_VISIBLE_DEVICES": ",".join(group), **order})
            for group in groups[:count or None]], gpus_per_run


def chosen(gpus):
    """The names of the GPUs to use."""
    if gpus == "none":
        return []
    there = visible(_listing(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if gpus == "all":
        return there
    chosen = [name.strip() for name in gpus.split(",")]
    if missing := [name for name in chosen if name not in there]:
        raise DeviceError(f"--gpus={gpus} names {', '.join(missing)}; visible: {', '.join(there) or 'none'}",
                          "name GPUs that are there, or leave --gpus out to use all")
    return chosen


def visible(listing, outer):
    """The GPUs that a program may use.

    Args:
        listing: What `nvidia-smi -L` prints.
        outer: CUDA_VISIBLE_DEVICES, or None where it isn't set.

    Returns:
        A list of words for CUDA_VISIBLE_DEVICES: numbers, or the UUIDs of the parts of a GPU that is split.
    """
    numbers, uuids, names = [], [], []
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
    seen = []
    for word in map(str.strip, outer.split(",")):
        known = word in numbers if word.isdecimal() else word and any(uuid.startswith(word) for uuid in uuids)
        if not known:
            break  # CUDA, too, ignores what comes after a name that isn't known
        seen.append(word)
    return seen


def _listing():
    """What `nvidia-smi -L` prints; nothing where there is no such program."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace",
                              timeout=_PATIENCE_SECONDS, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    except subprocess.TimeoutExpired:
        raise _failed(f"doesn't answer in {_PATIENCE_SECONDS:.0f} s") from None
    if done.returncode and _NONE not in done.stdout + done.stderr:
        raise _failed(f"ends with {done.returncode}: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout


def _failed(how):
    return DeviceError(f"nvidia-smi -L {how}", "repair the GPU's driver; --gpus=none runs on the CPU")
