"""A launcher's command line: its own flags, two dashes, the trainer's flags."""

import dataclasses

from trainer import flags
from trainer.config import Config, indivisible
from trainer.errors import UsageError


def parse(options, argv):
    """Reads and checks both halves, so that nothing starts anywhere over a wrong flag.

    Args:
        options: The dataclass of the launcher's own flags; see `trainer.flags.parse`.
        argv: The words after the program's name.

    Returns:
        (an instance of `options`, the trainer's words as a list, the `Config` that they make).

    Raises:
        UsageError: with everything that is wrong in either half.
    """
    at = argv.index("--") if "--" in argv else len(argv)
    parsed, problems = [], []
    for kind, words in ((options, argv[:at]), (Config, argv[at + 1:])):
        try:
            parsed.append(flags.parse(kind, words))
        except UsageError as error:
            problems += error.problems
    require(problems)
    return parsed[0], argv[at + 1:], parsed[1]


def require(problems):
    """Raises what is wrong with a launcher's command line, if anything is."""
    if problems:
        raise UsageError(problems, "correct the above; the launcher's flags stand before --, the trainer's after it; "
                         "--help on either side lists that side's")


def misfits(config, workers, gpus, flag):
    """What of the trainer's settings doesn't fit the workers that a launcher starts.

    Args:
        config: The trainer's `Config`.
        workers: How many there are.
        gpus: How many GPUs each has; 0 for the CPU, None if that isn't the launcher's to say.
        flag: The launcher's flag that says how many workers there are.

    Returns:
        (the `Config` with that number of GPUs, list of lines).
    """
    found = []
    if workers > 1 and config.strategy in ("one_device", "mirrored"):
        found.append(f"--strategy={config.strategy} is for one process, and would train the same on each of "
                     f"--{flag}={workers}; leave --strategy out, or say --{flag}=1")
    if workers > 1 and config.virtual_devices > 1:
        found.append("several workers take a CPU or whole GPUs each; received "
                     f"--virtual_devices={config.virtual_devices}; leave it out")
    config = config if gpus is None else dataclasses.replace(config, num_gpus=gpus)
    replicas, own = workers * max(1, config.num_gpus), config.problems()
    if workers > 1 and not own and config.batch_size % replicas:
        own = [indivisible(config.batch_size, replicas)]
    return config, found + own


def never_again(config):
    """What is wrong with `--resume=never` where the same words start a job again: a list of lines."""
    if config.resume != "never":
        return []
    return ["--resume=never: the job may be started again by itself, and would then refuse its own folder; "
            "leave it out"]
