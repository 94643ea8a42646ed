"""`python -m launch.local --num_workers=2 -- FLAGS`: several workers on this machine; 0: one for each GPU."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from launch import cli, gpus
from launch.cores import shares as core_shares
from launch.workers.supervisor import WorkerSpec, supervise
from launch.workers.worker import agent_command
from trainer.config import Config
from trainer.errors import DeviceError, UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.local --num_workers=N -- TRAINER'S FLAGS: several workers here, watched and started again."""

    num_workers: int = option(2, "number of workers; 0: one for each GPU that is visible", least=0, most=1024)
    gpus_per_worker: int = option(-1, "-1: an equal share of the visible GPUs; 0: CPU", least=-1)
    max_restarts: int = option(3, "start all workers again this often after a lost worker or device", least=0)
    hang_timeout: float | None = option(None, "the trainer's --hang_timeout", above=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a job as the command line says.

    Args:
        argv: The arguments after the program's name; None for the process's own.

    Returns:
        The exit code; see trainer/errors.py.
    """
    return run_to_exit_code(_run, sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> None:
    options, arguments, config = cli.parse(Options, argv)
    arguments = cli.with_hang_timeout(arguments, options.hang_timeout)
    specs = worker_specs(options, config, arguments)
    supervise(specs, arguments, config, options.max_restarts)


def _one_for_each_gpu(options: Options) -> Options:
    """The options with as many workers as GPUs are visible."""
    available = len(gpus.chosen("all"))
    if not available:
        raise DeviceError("--num_workers=0 is one worker for each GPU; none is visible",
                          "name a number; nvidia-smi -L lists the GPUs that the driver sees")
    if options.gpus_per_worker not in (-1, 1):
        raise UsageError("--num_workers=0 gives each worker one GPU; received "
                         f"--gpus_per_worker={options.gpus_per_worker}", "leave one of them out")
    return dataclasses.replace(options, num_workers=available, gpus_per_worker=1)


def worker_specs(options: Options, config: Config, arguments: list[str]) -> list[WorkerSpec]:
    """What is started.

    Args:
        options: The launcher's options.
        config: The trainer's settings.
        arguments: The trainer's arguments, to which the number of GPUs is added.

    Returns:
        A `WorkerSpec` for each worker.

    Raises:
        DeviceError: if there are not as many GPUs as asked for.
        UsageError: if the trainer's settings don't fit so many workers.
    """
    if options.num_workers == 0:
        options = _one_for_each_gpu(options)
    shares = _gpu_shares(options, config)
    num_gpus = len(shares[0]["CUDA_VISIBLE_DEVICES"].split(",")) if shares else 0
    fitting, problems = cli.misfits(config, options.num_workers, num_gpus, "num_workers")
    cli.require(problems)
    if fitting.num_gpus != config.num_gpus:
        arguments.append(f"--num_gpus={num_gpus}")  # exactly so many: never a silent run on the CPU
    import_path = os.pathsep.join(path for path in (str(Path.cwd()), os.environ.get("PYTHONPATH")) if path)
    return [WorkerSpec("127.0.0.1", "this machine", tuple(agent_command()), {"PYTHONPATH": import_path, **share},
                       cpus=cpus)
            for share, cpus in zip(shares or [{}] * options.num_workers, core_shares(options.num_workers), strict=True)]


def _gpu_shares(options: Options, config: Config) -> list[dict[str, str]] | None:
    """For each worker the variables that give it its GPUs; None for the CPU."""
    each, wanted = options.gpus_per_worker, config.num_gpus
    if each >= 0 and wanted >= 0 and each != wanted:
        raise UsageError(f"--gpus_per_worker={each} is not the trainer's --num_gpus={wanted}", "leave one of them out")
    each = max(each, wanted)
    if each < 0:
        available = len(gpus.chosen("all"))
        if available % options.num_workers:
            raise DeviceError(f"{available} GPUs can't be shared equally by {options.num_workers} workers",
                              "name --gpus_per_worker (0 trains on the CPU)")
        each = available // options.num_workers
    if not each:
        return None
    if not gpus.chosen("all"):
        raise DeviceError(f"each worker is to have {each} GPU{'s' if each > 1 else ''}; none is visible",
                          "--num_gpus=0 trains on the CPU; nvidia-smi -L lists the GPUs that the driver sees")
    return [slot.environment for slot in gpus.slots("all", each, options.num_workers)[0]]


if __name__ == "__main__":
    run_as_process(main)
