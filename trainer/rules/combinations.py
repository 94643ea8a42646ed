"""Settings that don't go together, each with the rule and what was received."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config import Config

_NEED_DATA_DIR = {"csv": "the CSV file, or the folder with train.csv", "folder": "the folder of the images",
                  "records": "the folder with dataset.json"}
_MOST_PROFILED = 1000  # steps; TensorBoard can't show much more


def broken_rules(config: Config, known: Collection[str]) -> list[str]:
    """The rules that settings break together.

    Args:
        config: The settings.
        known: The flags, such as --epochs, of which it is known already that their values are wrong.

    Returns:
        A line for each; empty if they go together.
    """
    problems = needs_data_dir(config.dataset, config.data_dir)
    if config.export == ():
        problems.append("--export names no format; --export=none exports nothing")
    if config.export and "none" in config.export and len(config.export) > 1:
        problems.append(f"--export=none excludes the others; received {','.join(config.export)}")
    if config.profiled and not 2 <= config.profiled[0] <= config.profiled[1] < config.profiled[0] + _MOST_PROFILED:
        problems.append(f"--profile_steps=A-B begins with step 2 or later and has 1 to {_MOST_PROFILED:,} steps; "
                        f"received {config.profile_steps}")
    if config.strategy == "one_device" and (config.num_gpus > 1 or config.virtual_devices > 1):
        problems.append(f"--strategy=one_device has one replica; received --num_gpus={config.num_gpus} "
                        f"--virtual_devices={config.virtual_devices}")
    if config.strategy == "multi_worker" and config.virtual_devices > 1:
        problems.append("--strategy=multi_worker takes a CPU or whole GPUs per worker; received "
                        f"--virtual_devices={config.virtual_devices}")
    try:
        re.compile(config.freeze)
    except re.error as error:
        problems.append(f"--freeze must be a regular expression; received {config.freeze!r}: {error}")
    if ":" in config.loss and config.label_smoothing:
        problems.append(f"--label_smoothing is for the losses of this program; received --loss={config.loss}, which "
                        "may smooth by itself")
    if config.sampling == config.class_weights == "balanced":
        problems.append("--sampling=balanced shows all classes equally often, so --class_weights=balanced would "
                        "count rare ones twice; received both")
    if {"flip", "alternating_flip"} <= set(config.augment):
        problems.append("--augment has one of flip and alternating_flip, for both together are neither; received "
                        f"{','.join(config.augment)}")
    if "--train_sizes" not in known:
        starts = [epoch for _, epoch in config.size_starts]
        if starts != sorted({*starts, 0.0}) and starts:
            problems.append("--train_sizes begins with a size from epoch 0 on, and its epochs rise; received "
                            f"{','.join(config.train_sizes)}")
    replicas = max(1, config.num_gpus) * max(1, config.virtual_devices)
    batch_size = config.known_batch_size
    if batch_size > 0 and replicas > 1 and batch_size % replicas:
        problems.append(indivisible(batch_size, replicas))
    return problems


def needs_data_dir(dataset: str, data_dir: str) -> list[str]:
    """The problem of a `--dataset` that is nowhere without `--data_dir`, as a list of one line; [] if there is none."""
    place = None if data_dir else _NEED_DATA_DIR.get(dataset)
    return [f"--dataset={dataset} needs --data_dir: {place}"] if place else []


def indivisible(batch_size: int, replicas: int) -> str:
    """The sentence for a global batch size that the replicas can't share evenly, with the nearest that they can."""
    below, above = batch_size // replicas * replicas, -(-batch_size // replicas) * replicas
    nearest = f"{below} or {above}" if below else f"{above}"
    return (f"--batch_size must be divisible by the number of replicas, {replicas}; received {batch_size}; "
            f"the nearest that are: {nearest}")
