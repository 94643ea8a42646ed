"""`python -m launch.slurm --FLAGS -- --TRAINER_FLAGS`: writes a job's batch script for Slurm, or submits it at once.

A worker per node, each with all GPUs that the job has on the node. Workers read their rank and addresses from srun's
variables (trainer/distributed/slurm_env.py). The script starts jobs again, by the table of restart_policy.py;
docs/slurm.md describes how.
"""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.cli import misfits, never_again, parse, require
from launch.slurm_script import make_script
from trainer.config import Config
from trainer.errors import UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code, say, say_exactly, tell

# Slurm's formats: minutes, minutes:seconds, hours:minutes:seconds, days-hours, and so on.
_TIME = r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?"


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.slurm --nodes=N -- TRAINER'S FLAGS: writes the batch script of a job, or submits it."""

    nodes: int = option(1, "number of nodes, each with one worker", least=1, most=65536)
    gpus_per_node: int = option(0, "number of GPUs of each node; 0: ask Slurm for none", least=0, most=1024)
    cpus_per_task: int = option(0, "number of CPUs of each worker; 0: the cluster's default, often one", least=0,
                                most=65535)
    time: str = option("", "how long a start may take, such as 90 (minutes), 12:00:00 or 2-00 (days-hours); a job that "
                       "isn't through by then comes back until it is; default: the partition's")
    partition: str = option("", "default: the cluster's")
    account: str = option("", "account that the job is charged to; default: the user's")
    job_name: str = option("lockstep", "the job's name, and its log's: NAME-NUMBER.log")
    signal_before: int = option(120, "seconds before the time limit at which workers are asked to save and to stop; "
                                "Slurm may do it up to a minute sooner", least=10, most=65535)
    max_restarts: int = option(3, "start all workers again this often after a lost worker or device; coming back after "
                               "the time limit doesn't count", least=0, most=1000)
    python: str = option("", "command that runs Python on the nodes, quoted as in a shell; default: this Python")
    out: str = option("", "write the script into this file; default: print it")
    submit: bool = option(False, "give the script to sbatch and print the job's number")

    def problems(self) -> list[str]:
        """All that is wrong with the values; checks what Slurm asks of names and times, too."""
        problems = super().problems()
        for name in ("partition", "account", "job_name"):
            value = getattr(self, name)
            if (value or name == "job_name") and not re.fullmatch(r"[^\s/\\\"'%]+", value):
                problems.append(f"--{name} must be a word without slashes, quotes and %; received {value!r}")
        limit = seconds(self.time) if self.time else None
        if self.time and not limit:
            problems.append("--time must be as Slurm takes it: minutes, hours:minutes:seconds or days-hours; received "
                            f"{self.time!r}")
        elif limit and limit <= self.signal_before:
            problems.append(f"--time must be longer than --signal_before={self.signal_before} seconds, or no start "
                            f"would get anywhere; received {self.time}")
        try:
            if self.python and not shlex.split(self.python):
                problems.append("--python names no program")
        except ValueError as error:
            problems.append(f"--python must be words as in a shell: {error}; received {self.python!r}")
        return problems


def seconds(time: str) -> int | None:
    """How many seconds a time limit of Slurm's is.

    Args:
        time: Such as 90, 12:00:00 or 2-00.

    Returns:
        Seconds, or None if the text is not a time limit.
    """
    match = re.fullmatch(_TIME, time, re.ASCII)
    if not match:
        return None
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    assert first is not None  # the only part that every format has
    if days is not None:
        hours, minutes, rest = first, second or 0, third or 0
    elif third is not None:
        hours, minutes, rest = first, second or 0, third
    else:
        hours, minutes, rest = 0, first, second or 0
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or submits a batch script as the command line says.

    Args:
        argv: The arguments after the program's name; None for the process's own.

    Returns:
        The exit code; see trainer/errors.py.
    """
    return run_to_exit_code(_write, sys.argv[1:] if argv is None else argv)


def _write(argv: Sequence[str]) -> None:
    options, arguments, config = parse(Options, argv)
    config = require_fit(options, config)
    arguments = [*arguments, f"--num_gpus={config.num_gpus}"] if options.gpus_per_node else arguments
    python = shlex.split(options.python) or [sys.executable]
    script = make_script(options, [*python, "-m", "trainer.main", *arguments], config, os.getcwd())
    path = Path(options.out).expanduser() if options.out else None
    if path:
        path.write_text(script, encoding="utf-8", errors="surrogateescape")
    if options.submit:
        say(submit(script))
    elif path:
        tell(f"{path} is written; sbatch {shlex.quote(str(path))} submits it")
    else:
        say_exactly(script)


def require_fit(options: Options, config: Config) -> Config:
    """Checks the trainer's settings against what the job asks Slurm for.

    Returns:
        The trainer's settings with the number of GPUs that Slurm gives to each worker, if the job asks for GPUs.

    Raises:
        UsageError: with all that doesn't fit.
    """
    nodes, gpus, problems = options.nodes, options.gpus_per_node, []
    if gpus and config.num_gpus not in (-1, gpus):
        problems.append(f"the trainer's --num_gpus must be --gpus_per_node, {gpus}; received {config.num_gpus}; leave "
                        "--num_gpus out")
    config, misfit_problems = misfits(config, nodes, gpus or None, "nodes")
    require(problems + misfit_problems + never_again(config))
    return config


def submit(script: str) -> str:
    """Gives a script to sbatch.

    Args:
        script: The script's text.

    Returns:
        The job's number, as sbatch prints it.

    Raises:
        UsageError: if sbatch isn't installed, or refuses the script; with sbatch's message.
    """
    # Inside of another job, that job's variables must not become the new job's.
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("SLURM_") or name == "SLURM_CONF"}
    try:
        done = subprocess.run(["sbatch", "--parsable"], input=script, env=environment, capture_output=True,
                              encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise UsageError("sbatch, which submits jobs, isn't on the PATH",
                         "call this on a machine of the cluster, or write the script with --out=FILE and take it "
                         "there") from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise UsageError(f"sbatch refused the job: {message}", "sinfo shows the partitions and their limits")
    return done.stdout.split(";")[0].strip()


if __name__ == "__main__":
    run_as_process(main)
