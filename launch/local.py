"""`python -m launch.local --num_workers=2 -- FLAGS`: several workers on this machine."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from launch import cli, gpus
from launch.workers.supervisor import WorkerSpec, supervise
from launch.workers.worker import agent_command
from trainer.config import Config
from trainer.errors import DeviceError, UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.local --num_workers=N -- TRAINER'S FLAGS: several workers here, watched and started again."""

    num_workers: int = option(2, "number of workers", least=1, most=1024)
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
    specs = _worker_specs(options, config, arguments)
    supervise(specs, arguments, config, options.max_restarts)


def _worker_specs(options: Options, config: Config, arguments: list[str]) -> list[WorkerSpec]:
    """A `WorkerSpec` for each worker; adds the number of GPUs to the trainer's arguments."""
    shares = _gpu_shares(options, config)
    num_gpus = len(shares[0]["CUDA_VISIBLE_DEVICES"].split(",")) if shares else 0
    fitting, problems = cli.misfits(config, options.num_workers, num_gpus, "num_workers")
    cli.require(problems)
    if fitting.num_gpus != config.num_gpus:
        arguments.append(f"--num_gpus={num_gpus}")  # exactly so many: never a silent run on the CPU
    import_path = os.pathsep.join(path for path in (str(Path.cwd()), os.environ.get("PYTHONPATH")) if path)
    cores: list[tuple[int, ...]] = [()] * options.num_workers if shares else _core_shares(options.num_workers)
    return [WorkerSpec("127.0.0.1", "this machine", tuple(agent_command()), {"PYTHONPATH": import_path, **share},
                       cpus=cpus)
            for share, cpus in zip(shares or [{}] * options.num_workers, cores, strict=True)]


def _core_shares(workers: int) -> list[tuple[int, ...]]:
    """Each worker's own cores, where there are enough: workers that share all cores take turns on them."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // workers
    return [tuple(cores[rank * each:(rank + 1) * each]) for rank in range(workers)]


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
