"""A launcher's command line: its own flags, two dashes, the trainer's flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TypeVar

from trainer import flags
from trainer.config import Config
from trainer.errors import UsageError
from trainer.options import Checked
from trainer.rules.combinations import indivisible

_Options = TypeVar("_Options", bound=Checked)


def parse(options: type[_Options], argv: Sequence[str]) -> tuple[_Options, list[str], Config]:
    """Reads and checks both halves, so that a wrong flag is refused before any worker starts.

    Args:
        options: The dataclass of the launcher's own flags; see `trainer.flags.parse`.
        argv: The arguments after the program's name.

    Returns:
        (an instance of `options`, the trainer's arguments, the `Config` that they make).

    Raises:
        UsageError: with everything that is wrong in either half.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    arguments = list(argv[end + 1:])
    problems: list[str] = []
    parsed = _parse_half(options, argv[:end], problems)
    config = _parse_half(Config, arguments, problems)
    require(problems)
    assert parsed is not None and config is not None  # one without a value has a problem
    return parsed, arguments, config


def _parse_half(kind: type[_Options], argv: Sequence[str], problems: list[str]) -> _Options | None:
    """The value of one half; None if anything is wrong with it, which is added to `problems`."""
    try:
        return flags.parse(kind, argv)
    except UsageError as error:
        problems += error.problems
        return None


def require(problems: Collection[str]) -> None:
    """Refuses a launcher's command line that has problems.

    Args:
        problems: A line for each.

    Raises:
        UsageError: with all of them, if there are any.
    """
    if problems:
        raise UsageError(problems, "correct the above; the launcher's flags stand before --, the trainer's after it; "
                         "--help on either side lists that side's")


def misfits(config: Config, workers: int, gpus: int | None, flag: str) -> tuple[Config, list[str]]:
    """Checks the trainer's settings against the workers that a launcher starts.

    Args:
        config: The trainer's settings.
        workers: How many workers the job has.
        gpus: How many GPUs each worker has; 0 for the CPU, None if the launcher doesn't decide that.
        flag: The launcher's flag that says how many workers there are.

    Returns:
        (the `Config` with that number of GPUs, a line for each problem).
    """
    problems = []
    if workers > 1 and config.strategy in ("one_device", "mirrored"):
        problems.append(f"--strategy={config.strategy} is for one process, and each of the {workers} workers would "
                        f"train the same; leave --strategy out, or start one worker (--{flag})")
    if workers > 1 and config.virtual_devices > 1:
        problems.append("several workers take a CPU or whole GPUs each; received "
                        f"--virtual_devices={config.virtual_devices}; leave it out")
    config = config if gpus is None else dataclasses.replace(config, num_gpus=gpus)
    replicas, config_problems = workers * max(1, config.num_gpus), config.problems()
    if workers > 1 and not config_problems and config.known_batch_size % replicas:
        config_problems = [indivisible(config.known_batch_size, replicas)]
    return config, problems + config_problems


def never_again(config: Config) -> list[str]:
    """Checks for `--resume=never` where the same command starts a job again.

    Args:
        config: The trainer's settings.

    Returns:
        A line for the problem; empty if there is none.
    """
    if config.resume != "never":
        return []
    return ["--resume=never: the job may be started again by itself, and would then refuse its own folder; "
            "leave it out"]


def with_hang_timeout(arguments: list[str], hang_timeout: float | None) -> list[str]:
    """Hands a launcher's `--hang_timeout` on to the trainer.

    Args:
        arguments: The trainer's.
        hang_timeout: In seconds; None if the launcher was given none.

    Returns:
        The trainer's arguments, with the flag if there is one.
    """
    return arguments if hang_timeout is None else [*arguments, f"--hang_timeout={hang_timeout:g}"]
