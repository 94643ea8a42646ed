"""`python -m launch.sweep FILE`: a run for each combination of a file's values, one at a time per GPU."""

import contextlib
import dataclasses
import sys
from pathlib import Path

from launch import gpus
from launch.sweep import grid, results, runner
from launch.sweep.display import Board
from trainer import flags
from trainer.errors import BusyError, LockstepError, Stopped, UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code
from trainer.process.signals import StopRequest
from trainer.storage.folder_lock import FolderLock


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.sweep FILE: a run for each combination of a file's values, one at a time per GPU."""

    file: tuple[str, ...] = option((), "flags of trainer.main, one a line; several values are written --name=value | "
                                   "value, and the runs are the product of all; see docs/sweep.md")
    out: str = option("", "a folder for each run, and the results; default: runs/ and the file's name")
    gpus: str = option("all", "a comma list of those to use, numbered as nvidia-smi does; all: that are visible",
                       choices=("all", "none"), pattern=(r"[\w./-]+(,[\w./-]+)*", "a comma list"))
    gpus_per_run: int = option(1, "how many a run trains on", least=1)
    slots: int = option(0, "runs at a time; 0: as many as there are GPUs for, or one on a machine without", least=0)
    max_restarts: int = option(3, "start a run again this often if its exit code says that this may help", least=0)
    results: bool = option(False, "print the table of what is there, and start nothing")

    def problems(self):
        """See `Checked.problems`."""
        found = super().problems()
        if len(self.file) != 1:
            found.append(f"a sweep has one file; received {', '.join(self.file) or 'none'}")
        return found


def main(argv=None):
    """Sweeps as the command line says.

    Args:
        argv: The words after the program's name; None for the process's own.

    Returns:
        0 if all runs are done; 75 if it was asked to stop before; else the code of the file's first run that failed.
    """
    return run_to_exit_code(_sweep, sys.argv[1:] if argv is None else argv)


def _sweep(argv):
    options = flags.parse(Options, argv, positional="file")
    file = Path(options.file[0])
    out = Path(options.out).expanduser() if options.out else Path("runs") / file.stem
    if options.results:
        planned = grid.read(file, out)
        if not out.is_dir():
            raise UsageError(f"there is no {out}", "name the sweep's --out, or leave --results out to begin it")
        Board(None, []).results(results.rows(planned, results.codes(out)))
        return
    slots, gpus_per_run = gpus.slots(options.gpus, options.gpus_per_run, options.slots)
    planned = grid.read(file, out, gpus_per_run)
    if obstacles := [line for run in planned for line in results.obstacles(run)]:
        raise UsageError(obstacles, "use another --out, or set the file back to go on with these")
    if (out / "config.json").exists():
        raise UsageError(f"{out} is the folder of a run", "use another --out for the sweep")
    out.mkdir(parents=True, exist_ok=True)
    with StopRequest(exits_process=True) as stop, _locked(out):
        jobs = _run_all(options, out, planned, slots, stop)
    _end(jobs, stop)


@contextlib.contextmanager
def _locked(out):
    lock = FolderLock(out)
    try:
        lock.take()
    except BusyError as error:
        raise BusyError(error.cause, "wait for it or stop it, or use another --out") from None
    try:
        yield
    finally:
        lock.give_back()


def _run_all(options, out, planned, slots, stop):
    """Runs what isn't done yet; returns the `Job`s."""
    jobs = [runner.Job(run, "done" if results.figures(run) else "waiting") for run in planned]
    board = Board(out / "log.txt", jobs)
    done = sum(job.state == "done" for job in jobs)
    board.say(f"{len(jobs)} runs in {out}{f', {done} of them done' if done else ''}; "
              f"{len(slots)} at a time: {', '.join(slot.name for slot in slots)}")

    def write():
        results.write(out, results.rows(planned, _codes(jobs)))

    write()
    with board:
        runner.Sweep(jobs, slots, options.max_restarts, board, write).run(stop)
    board.results(results.rows(planned, _codes(jobs)))
    board.say(f"  {out / 'sweep.csv'!s:<50} this table, for programs (sweep.json, too)")
    board.say(f"  {f'tensorboard --logdir={out}':<50} all runs; HParams has this table")
    board.close()
    return jobs


def _codes(jobs):
    return {job.run.name: job.code for job in jobs if job.code is not None}


def _end(jobs, stop):
    """Raises what the exit code is to say."""
    failed = [job for job in jobs if job.state == "failed"]
    unfinished = sum(job.state != "done" for job in jobs) - len(failed)
    if stop.signal and unfinished:
        raise Stopped(f"asked to stop ({stop.signal}); {unfinished} of {len(jobs)} runs aren't done",
                      "run the same command again; it goes on from there")
    if failed:
        lines = [f"{job.run.name} {job.ending()}; see {job.log}" for job in failed]
        error = LockstepError("\n  ".join([f"{len(failed)} of {len(jobs)} runs failed:", *lines]),
                              "fix that, and run the same command again: what is done stays done")
        error.code = failed[0].code
        raise error


if __name__ == "__main__":
    run_as_process(main)
