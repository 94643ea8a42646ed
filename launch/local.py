"""`python -m launch.local --num_workers=2 -- FLAGS`: several workers on this machine."""

import dataclasses
import os
import sys
from pathlib import Path

from launch import cli, gpus
from launch.workers.supervisor import Place, Supervisor
from launch.workers.worker import agent_command
from trainer.errors import DeviceError, UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code
from trainer.process.signals import StopRequest


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.local --num_workers=N -- TRAINER'S FLAGS: several workers here, watched and started again."""

    num_workers: int = option(2, "how many", least=1, most=1024)
    gpus_per_worker: int = option(-1, "-1: an equal share of those that are visible; 0: CPU", least=-1)
    max_restarts: int = option(3, "start all workers again this often after a lost worker or device", least=0)
    hang_timeout: float | None = option(None, "as the trainer's", above=0)


def main(argv=None):
    """Runs a job as the command line says.

    Args:
        argv: The words after the program's name; None for the process's own.

    Returns:
        The exit code; see trainer/errors.py.
    """
    return run_to_exit_code(_run, sys.argv[1:] if argv is None else argv)


def _run(argv):
    options, words, config = cli.parse(Options, argv)
    words = with_deadline(words, options.hang_timeout)
    places = _places(options, config, words)
    supervise(places, words, config, options)


def with_deadline(words, hang_timeout):
    """The trainer's words with the launcher's `--hang_timeout`, if it was given one."""
    return words if hang_timeout is None else [*words, f"--hang_timeout={hang_timeout:g}"]


def supervise(places, words, config, options):
    """Runs a job on some places to its end.

    Args:
        places: A `Place` for each worker.
        words, config: The trainer's, as `command.parse` gives them.
        options: The launcher's, with `max_restarts`.

    Raises:
        LockstepError: if it didn't end well.
    """
    # A run that was to be new is its own when it starts again.
    again = [*words, "--resume=auto"] if config.resume == "never" else words
    with StopRequest(exits_process=True) as stop:
        Supervisor(places, words, Path(config.model_dir).expanduser(), options.max_restarts, stop, again).run()


def _places(options, config, words):
    shares = _shares(options, config)
    gpus = len(shares[0]["CUDA_VISIBLE_DEVICES"].split(",")) if shares else 0
    fitting, wrong = cli.misfits(config, options.num_workers, gpus, "num_workers")
    cli.require(wrong)
    if fitting.num_gpus != config.num_gpus:
        words.append(f"--num_gpus={gpus}")  # exactly so many: never a silent run on the CPU
    paths = os.pathsep.join(path for path in (str(Path.cwd()), os.environ.get("PYTHONPATH")) if path)
    cpus = [()] * options.num_workers if shares else _cores(options.num_workers)
    return [Place("127.0.0.1", "this machine", tuple(agent_command()), {"PYTHONPATH": paths, **share}, cpus=mine)
            for share, mine in zip(shares or [{}] * options.num_workers, cpus, strict=True)]


def _cores(workers):
    """Each worker's own cores, where there are enough: workers that share them all take turns in each other's way."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // workers
    return [tuple(cores[number * each:(number + 1) * each]) for number in range(workers)]


def _shares(options, config):
    """For each worker the variables that give it its GPUs; None for the CPU."""
    each, asked = options.gpus_per_worker, config.num_gpus
    if each >= 0 and asked >= 0 and each != asked:
        raise UsageError(f"--gpus_per_worker={each} is not the trainer's --num_gpus={asked}", "leave one of them out")
    each = max(each, asked)
    if each < 0:
        there = len(gpus.chosen("all"))
        if there % options.num_workers:
            raise DeviceError(f"{there} GPUs can't be shared equally by {options.num_workers} workers",
                              "name --gpus_per_worker (0 trains on the CPU)")
        each = there // options.num_workers
    if not each:
        return None
    if not gpus.chosen("all"):
        raise DeviceError(f"each worker is to have {each} GPU{'s' if each > 1 else ''}; none is visible",
                          "--num_gpus=0 trains on the CPU; nvidia-smi -L lists what the driver sees")
    return [slot.environment for slot in gpus.slots("all", each, options.num_workers)[0]]


if __name__ == "__main__":
    run_as_process(main)
