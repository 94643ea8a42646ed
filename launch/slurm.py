"""`python -m launch.slurm --FLAGS -- --TRAINER_FLAGS`: writes a job's batch script for Slurm, or submits it at once.

A worker per node, each with all GPUs that the job has there. srun tells a worker its place
(trainer/distributed/slurm_env.py). Who starts again is the script's business, by the table of restart_policy.py;
docs/slurm.md tells what comes of it.
"""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from launch.cli import misfits, never_again, parse, require
from launch.slurm_script import make_script
from trainer.errors import UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code

# Slurm's own: minutes, minutes:seconds, hours:minutes:seconds, days-hours, and so on.
_TIME = r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?"


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.slurm --nodes=N -- TRAINER'S FLAGS: writes the batch script of a job, or submits it."""

    nodes: int = option(1, "each with one worker", least=1, most=65536)
    gpus_per_node: int = option(0, "0: ask Slurm for none", least=0, most=1024)
    cpus_per_task: int = option(0, "of each worker; 0: what the cluster gives by default, often one", least=0,
                                most=65535)
    time: str = option("", "how long a start may take, such as 90 (minutes), 12:00:00 or 2-00 (days-hours); a job that "
                       "isn't through by then comes back until it is; default: the partition's")
    partition: str = option("", "default: the cluster's")
    account: str = option("", "who pays; default: the user's")
    job_name: str = option("lockstep", "also the log's: NAME-NUMBER.log")
    signal_before: int = option(120, "seconds before the time limit at which workers are asked to save and to stop; "
                                "Slurm may do it up to a minute sooner", least=10, most=65535)
    max_restarts: int = option(3, "start all workers again this often after a lost worker or device; coming back after "
                               "the time limit doesn't count", least=0, most=1000)
    python: str = option("", "what runs Python on the nodes, words as in a shell; default: this Python")
    out: str = option("", "write the script into this file; default: print it")
    submit: bool = option(False, "give the script to sbatch and print the job's number")

    def problems(self):
        """See `Checked.problems`; adds what Slurm asks of names and times."""
        found = super().problems()
        for name in ("partition", "account", "job_name"):
            value = getattr(self, name)
            if (value or name == "job_name") and not re.fullmatch(r"[^\s/\\\"'%]+", value):
                found.append(f"--{name} must be a word without slashes, quotes and %; received {value!r}")
        limit = seconds(self.time) if self.time else None
        if self.time and not limit:
            found.append("--time must be as Slurm takes it: minutes, hours:minutes:seconds or days-hours; received "
                         f"{self.time!r}")
        elif limit and limit <= self.signal_before:
            found.append(f"--time must be longer than --signal_before={self.signal_before} seconds, or no start would "
                         f"get anywhere; received {self.time}")
        try:
            if self.python and not shlex.split(self.python):
                found.append("--python names no program")
        except ValueError as error:
            found.append(f"--python must be words as in a shell: {error}; received {self.python!r}")
        return found


def seconds(time):
    """How long a time of Slurm's is.

    Args:
        time: Such as 90, 12:00:00 or 2-00.

    Returns:
        An int, or None if it is no time.
    """
    found = re.fullmatch(_TIME, time, re.ASCII)
    if not found:
        return None
    days, first, second, third = (part and int(part) for part in found.groups())
    if days is not None:
        hours, minutes, rest = first, second or 0, third or 0
    elif third is not None:
        hours, minutes, rest = first, second, third
    else:
        hours, minutes, rest = 0, first, second or 0
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def main(argv=None):
    """Writes or submits a batch script as the command line says.

    Args:
        argv: The words after the program's name; None for the process's own.

    Returns:
        The exit code; see trainer/errors.py.
    """
    return run_to_exit_code(_write, sys.argv[1:] if argv is None else argv)


def _write(argv):
    options, words, config = parse(Options, argv)
    config = require_fit(options, config)
    words = [*words, f"--num_gpus={config.num_gpus}"] if options.gpus_per_node else words
    python = shlex.split(options.python) or [sys.executable]
    script = make_script(options, [*python, "-m", "trainer.main", *words], config, os.getcwd())
    if options.out:
        path = Path(options.out).expanduser()
        path.write_text(script, encoding="utf-8")
    if options.submit:
        print(submit(script))
    elif options.out:
        print(f"{path} is written; sbatch {shlex.quote(str(path))} submits it", file=sys.stderr)
    else:
        print(script, end="")


def require_fit(options, config):
    """Holds the trainer's settings against what the job asks Slurm for.

    Args:
        options: The `Options`.
        config: The trainer's `Config`.

    Returns:
        The `Config` with the number of GPUs that Slurm gives to each worker, if it is asked for some.

    Raises:
        UsageError: with all that doesn't fit.
    """
    nodes, gpus, found = options.nodes, options.gpus_per_node, []
    if gpus and config.num_gpus not in (-1, gpus):
        found.append(f"the trainer's --num_gpus must be --gpus_per_node, {gpus}; received {config.num_gpus}; leave "
                     "--num_gpus out")
    config, more = misfits(config, nodes, gpus or None, "nodes")
    require(found + more + never_again(config))
    return config


def submit(script):
    """Gives a script to sbatch.

    Args:
        script: Its text.

    Returns:
        The job's number, as sbatch prints it.

    Raises:
        UsageError: if sbatch isn't there, or refuses; with its words.
    """
    # Of the job that this is called from, if it is: its steps are none of the new job's business.
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("SLURM_") or name == "SLURM_CONF"}
    try:
        done = subprocess.run(["sbatch", "--parsable"], input=script, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise UsageError("sbatch, which submits jobs, isn't on the PATH",
                         "call this on a machine of the cluster, or write the script with --out=FILE and take it "
                         "there") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise UsageError(f"sbatch refused the job: {said}", "sinfo shows the partitions and their limits")
    return done.stdout.split(";")[0].strip()


if __name__ == "__main__":
    run_as_process(main)
