"""What a process chooses once: TensorFlow starts its devices with its first operation, and keeps them as they are.

The command is a process for each run. A script or a notebook may have several runs one after the other, or operations
of its own before the first: then the devices that are there must be those that the settings ask for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.distributed.devices import autotune
from trainer.errors import UsageError
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.config import Config

_FIX = ("start it in a process of its own: restart the notebook's kernel, or run it with the command (lockstep train). "
        "In one process: the first call first, before operations of TensorFlow's")
_first: Config | None = None  # of this process's runs


@contextlib.contextmanager
def started_devices_fit(config: Config, kernel_choices: Path | None = None) -> Iterator[None]:
    """For a block that chooses devices.

    Args:
        config: The settings.
        kernel_choices: The file with the kernel choices of the run's earlier start; None if there is none.

    Raises:
        UsageError: if the devices have started, and aren't those that the settings ask for.
    """
    global _first
    started, gpus = _has_started(), tf.config.list_physical_devices("GPU")
    if started:
        _require_count(config, len(gpus))
    if gpus and config.num_gpus != 0:
        _require_kernels(config, kernel_choices, started)
    try:
        yield
    except RuntimeError as error:  # of what can't be set any more
        raise UsageError(f"TensorFlow's devices have started in this process, and are not as "
                         f"--num_gpus={config.num_gpus} --virtual_devices={config.virtual_devices} need them ({error})",
                         _FIX) from error
    _first = _first or config


def _has_started() -> bool:
    from tensorflow.python.eager import context  # pyright: ignore[reportMissingImports]  no public name says it

    return bool(context.context()._initialized)  # pyright: ignore[reportOptionalMemberAccess]  TensorFlow has no types


def _require_count(config: Config, all_gpus: int) -> None:
    """Refuses settings that ask for other devices than those that have started."""
    gpus = len(tf.config.get_visible_devices("GPU"))
    one = config.strategy == "one_device" and config.num_gpus < 0
    wanted = min(1, all_gpus) if one else all_gpus if config.num_gpus < 0 else min(config.num_gpus, all_gpus)
    parts = len(tf.config.list_logical_devices("GPU" if gpus else "CPU")) // max(1, gpus)
    if (wanted, max(1, config.virtual_devices)) != (gpus, parts):
        logical = f"{parts} logical device{'s' if parts > 1 else ''} {'each' if gpus else 'on the CPU'}"
        raise UsageError(f"a process chooses its devices once, and this one has {gpus or 'no'} GPUs, {logical}; "
                         f"received --num_gpus={config.num_gpus} --virtual_devices={config.virtual_devices}", _FIX)


def _require_kernels(config: Config, kernel_choices: Path | None, started: bool) -> None:
    """Refuses settings, and runs on GPUs, whose kernels follow from what XLA read when it started."""
    if _first and _first.deterministic != config.deterministic:
        raise UsageError(f"a process chooses its kernels in one way; its first run had --deterministic="
                         f"{str(_first.deterministic).lower()}, received {str(config.deterministic).lower()}", _FIX)
    known = autotune.hash_of(kernel_choices) if kernel_choices else None
    if known and started and known not in autotune.of_this_process:
        raise UsageError("the run goes on with the kernels that its earlier start chose, and XLA reads them only when "
                         f"it starts, which it has in this process; they are in {kernel_choices}", _FIX)
    autotune.of_this_process.update(filter(None, [known]))
