"""`python -m launch.sweep FILE`: a run for each combination of a file's values, one at a time per GPU."""

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from launch import cores, gpus
from launch.sweep import grid, results, runner
from launch.sweep.display import Display
from launch.sweep.job import Job
from trainer import flags
from trainer.errors import BusyError, LockstepError, Stopped, UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code
from trainer.process.signals import StopRequest
from trainer.storage.folder_lock import FolderLock

_SHOWN = 8  # lines of a long list


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.sweep FILE: a run for each combination of a file's values, one at a time per GPU."""

    file: tuple[str, ...] = option((), "flags of trainer.main, one a line; several values are written --name=value | "
                                   "value, and the runs are the product of all; see docs/sweep.md")
    out: str = option("", "a folder for each run, and the results; default: runs/ and the file's name")
    gpus: str = option("all", "a comma list of the GPUs to use, numbered as in nvidia-smi; all: those that are visible",
                       choices=("all", "none"), pattern=(r"[\w./-]+(,[\w./-]+)*", "a comma list"))
    gpus_per_run: int = option(1, "how many a run trains on", least=1)
    slots: int = option(0, "runs at a time; 0: as many as there are GPUs for, or one on a machine without", least=0)
    max_restarts: int = option(3, "start a run again this often if its exit code says that another start may help",
                               least=0)
    results: bool = option(False, "print the table of the results so far, and start nothing")

    def problems(self) -> list[str]:
        """All that is wrong with the values; checks that there is one file, too."""
        problems = super().problems()
        if len(self.file) != 1:
            problems.append(f"a sweep has one file; received {', '.join(self.file) or 'none'}")
        return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Sweeps as the command line says.

    Args:
        argv: The arguments after the program's name; None for the process's own.

    Returns:
        0 if all runs are done; 75 if the sweep was asked to stop before; else the code of the file's first run that
        failed.
    """
    return run_to_exit_code(_sweep, sys.argv[1:] if argv is None else argv)


def _sweep(argv: Sequence[str]) -> None:
    options = flags.parse(Options, argv, positional="file")
    file = Path(options.file[0])
    out = Path(options.out).expanduser() if options.out else Path("runs") / file.stem
    if options.results:
        planned = grid.read(file, out)
        if not out.is_dir():
            raise UsageError(f"there is no {out}", "name the sweep's --out, or leave --results out to begin it")
        Display(None, []).results(results.rows(planned, results.codes(out)))
        return
    slots, gpus_per_run = gpus.slots(options.gpus, options.gpus_per_run, options.slots)
    planned = grid.read(file, out, gpus_per_run)
    shares = cores.shares(max(1, min(len(slots), len(planned))))  # a slot too many is for runs that are started again
    slots = [dataclasses.replace(slot, cores=shares[index % len(shares)]) for index, slot in enumerate(slots)]
    if obstacles := [line for run in planned for line in results.obstacles(run)]:
        more = [f"and {len(obstacles) - _SHOWN:,} more like these"] if len(obstacles) > _SHOWN else []
        raise UsageError([*obstacles[:_SHOWN], *more], "use another --out, or set the file back to go on with these")
    if (out / "config.json").exists():
        raise UsageError(f"{out} is the folder of a run", "use another --out for the sweep")
    out.mkdir(parents=True, exist_ok=True)
    with StopRequest(exits_process=True) as stop, _locked(out):
        jobs = _run_all(options, out, planned, slots, stop)
    _end(jobs, stop)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Locks the sweep's folder."""
    lock = FolderLock(out)
    try:
        lock.take()
    except BusyError as error:
        raise BusyError(error.cause, "wait for it or stop it, or use another --out") from None
    try:
        yield
    finally:
        lock.give_back()


def _run_all(options: Options, out: Path, planned: Sequence[grid.Run], slots: Sequence[gpus.Slot],
             stop: StopRequest) -> list[Job]:
    """Runs what isn't done yet; returns all jobs."""
    jobs = [Job(run, "done" if results.figures(run) else "waiting") for run in planned]
    display = Display(out / "log.txt", jobs)
    done = sum(job.state == "done" for job in jobs)
    display.say(f"{len(jobs)} runs in {out}{f', {done} of them done' if done else ''}; "
                f"{len(slots)} at a time: {', '.join(slot.name for slot in slots)}")

    def write() -> None:
        results.write(out, results.rows(planned, _codes(jobs)))

    write()
    with display:
        runner.Sweep(jobs, slots, options.max_restarts, display, write).run(stop)
    display.results(results.rows(planned, _codes(jobs)))
    display.say(f"  {out / 'sweep.csv'!s:<50} this table, for programs (sweep.json, too)")
    display.say(f"  {shlex.join(['tensorboard', f'--logdir={out}']):<50} all runs; HParams has this table")
    display.close()
    return jobs


def _codes(jobs: Sequence[Job]) -> dict[str, int]:
    return {job.run.name: job.code for job in jobs if job.code is not None}


def _end(jobs: Sequence[Job], stop: StopRequest) -> None:
    """Raises the error whose exit code says how the sweep ended, if not all runs are done."""
    failed = [job for job in jobs if job.state == "failed"]
    unfinished = sum(job.state != "done" for job in jobs) - len(failed)
    if stop.signal and unfinished:
        raise Stopped(f"asked to stop ({stop.signal}); {unfinished} of {len(jobs)} runs aren't done",
                      "run the same command again; it goes on from there")
    if failed:
        lines = [f"{job.run.name} {job.ending()}; see {job.log}" for job in failed]
        more = [f"and {len(lines) - _SHOWN:,} more; sweep.csv has all"] if len(lines) > _SHOWN else []
        error = LockstepError("\n  ".join([f"{len(failed)} of {len(jobs)} runs failed:", *lines[:_SHOWN], *more]),
                              "fix that, and run the same command again: what is done stays done")
        error.code = failed[0].code or error.code
        raise error


if __name__ == "__main__":
    run_as_process(main)
