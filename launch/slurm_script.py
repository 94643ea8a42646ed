"""The batch script of a job for Slurm: what it asks for, and what it does when its workers have ended."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trainer.config import Config
from trainer.errors import DeviceError, Stopped, UsageError, WorkerError

if TYPE_CHECKING:
    from launch.slurm import Options

_MARGIN_SECONDS = 60  # added to the time that workers wait before they give up on each other

_BODY = r"""
# A step that Slurm itself could not start means another start, as a lost worker does.
export SLURM_EXIT_ERROR=@lost@
# What the workers of this job know, and no other process: srun hands it to them.
LOCKSTEP_TOKEN=$(head --bytes=32 /dev/urandom | od --address-radix=n --format=x1 | tr --delete ' \n')
export LOCKSTEP_TOKEN
# srun takes the number of CPUs from the second variable only.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi

say() { echo "lockstep: job $SLURM_JOB_ID: $*" >&2; }

# Seconds up to the job's time limit; very many where it has none.
seconds_left() {
    local end
    end=$(SLURM_TIME_FORMAT=standard squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e)
    if [[ $end == ????-??-??T* ]]; then end=$(date --date="$end" +%s); else end=9999999999; fi
    echo $((end - $(date +%s)))
}

# Queues the job again. Slurm ends this start of the job, so the lines after scontrol are for the case that it refuses.
requeue() {
    say "$1; queueing it again"
    scontrol requeue "$SLURM_JOB_ID" || say "Slurm refused to queue it again; submit the script again to go on"
    exit "$2"
}

say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST"
restarts=0
while true; do
    # The workers end together, by themselves. srun must not end the others because one has ended; only much later, for
    # a worker that hangs and can't end itself any more.
    srun --kill-on-bad-exit=0 --wait="$patience" "${trainer[@]}"
    code=$?
    if ((code == @stopped@)); then requeue "asked to stop, and saved" $code; fi
    # Of the codes, only lost devices, lost workers and death by a signal mean another start.
    if ((code != @device@ && code != @lost@ && (code <= 128 || code >= 192))); then
        if ((code)); then say "ended with $code, which another start doesn't change"; fi
        exit $code
    fi
    pause=$((restarts < 6 ? 1 << restarts : 60)) left=$(seconds_left)
    # Slurm asks once to stop, up to a minute early, and only a step that runs at that moment receives the signal.
    if ((left < pause + signal_before + 60 && left < SECONDS)); then
        requeue "a worker or a device was lost (srun: $code) shortly before the time limit" $code
    fi
    if ((restarts >= max_restarts)); then
        say "a worker or a device was lost (srun: $code), and all $max_restarts restarts (--max_restarts) are used"
        exit $code
    fi
    restarts=$((restarts + 1))
    say "a worker or a device was lost (srun: $code); restart $restarts of $max_restarts in $pause s"
    sleep $pause
done
"""


def make_script(options: Options, command: Sequence[str], config: Config, folder: str) -> str:
    """The text of a batch script.

    Args:
        options: The launcher's.
        command: The command that starts a worker.
        config: The trainer's settings that the command makes.
        folder: The folder where the job runs: relative paths in the command start there.

    Raises:
        UsageError: if the folder's name can't be in a script.
    """
    if "\n" in folder:
        raise UsageError(f"this folder's name has a line break: {folder!r}", "call this from another one")
    patience = math.ceil(max(config.start_timeout, config.hang_timeout, options.signal_before)) + _MARGIN_SECONDS
    header = "\n".join(f"#SBATCH --{name}={shlex.quote(str(value))}" if value != "" else f"#SBATCH --{name}"
                       for name, value in _requests(options, folder))
    # One word a line: a user who changes the script finds the flag.
    words = "".join(f"    {shlex.quote(word)}\n" for word in command)
    values = f"""trainer=(
{words})
max_restarts={options.max_restarts}
signal_before={options.signal_before}
patience={patience}
"""
    body = _BODY
    for name, kind in (("device", DeviceError), ("lost", WorkerError), ("stopped", Stopped)):
        body = body.replace(f"@{name}@", str(kind.code))
    return f"#!/bin/bash\n{header}\n\n{values}{body}"


def _requests(options: Options, folder: str) -> Iterator[tuple[str, str | int]]:
    """(name, value) of sbatch's options; a value of "" for those that take none."""
    yield "job-name", options.job_name
    yield "nodes", options.nodes
    yield "ntasks-per-node", 1
    for name in ("gpus_per_node", "cpus_per_task", "time", "partition", "account"):
        if value := getattr(options, name):
            yield name.replace("_", "-"), value
    yield "chdir", folder
    yield "output", "%x-%j.log"
    yield "open-mode", "append"
    yield "requeue", ""
    # The signal goes to the steps, not to the script: the workers save and end, and then the script goes on.
    yield "signal", f"TERM@{options.signal_before}"
