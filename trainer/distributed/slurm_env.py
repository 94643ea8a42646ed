"""Which task of a Slurm step this process is, from the variables that srun sets in its tasks. No TensorFlow.

    SLURM_STEP_NODELIST         node[01-03,07],gpu5     the step's nodes
    SLURM_STEP_TASKS_PER_NODE   2(x3),1,2               how many tasks each of them has
    SLURM_NODEID, SLURM_LOCALID                         which node this is, and which of its tasks

Workers are numbered node by node, which need not be SLURM_PROCID: a worker's rank doesn't depend on how srun's
--distribution assigns tasks to nodes.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence

from trainer.distributed.wire import join_address
from trainer.errors import UsageError

# Linux takes the ports of outgoing connections from 32768 on: one of those may be in use at any moment.
_PORTS = range(20000, 32000)
# With these, jobs whose numbers are less than 30 apart, and their first five steps, begin at least 72 ports apart.
_JOB_STRIDE, _STEP_STRIDE = 8129, 3637
_MOST_HOSTS = 65536


def find_task(variables: Mapping[str, str], least: int = 2) -> tuple[int, tuple[str, ...]] | None:
    """Finds which of a step's tasks this process is.

    Args:
        variables: Name to value, as in `os.environ`. LOCKSTEP_PORT is the first worker's port; the ports of the
            others follow it.
        least: The least number of tasks that make a job. A shell in an allocation has no step, or one of a single
            task.

    Returns:
        (this worker's rank, "host:port" of all workers by rank), or None outside of a step of that many tasks.

    Raises:
        UsageError: if the variables don't fit together, or LOCKSTEP_PORT is not a port.
    """
    if "SLURM_STEP_ID" not in variables or "SLURM_STEP_NUM_TASKS" not in variables:
        return None
    try:
        count = int(variables["SLURM_STEP_NUM_TASKS"])
        if count < least:
            return None
        hosts = expand_hosts(variables["SLURM_STEP_NODELIST"])
        tasks = expand_counts(variables["SLURM_STEP_TASKS_PER_NODE"])
        node, local = int(variables["SLURM_NODEID"]), int(variables["SLURM_LOCALID"])
        if len(hosts) != len(tasks) or sum(tasks) != count or not (0 <= node < len(tasks) and 0 <= local < tasks[node]):
            raise ValueError(f"task {local} of node {node} is not one of {count} on {len(hosts)} nodes")
        job, step = int(variables["SLURM_JOB_ID"]), int(variables["SLURM_STEP_ID"])
    except (ValueError, KeyError) as error:
        received = {name: value for name, value in variables.items() if name.startswith("SLURM_STEP_")}
        raise UsageError(f"Slurm's variables can't be read: {type(error).__name__}: {error}; received {received}",
                         "start the workers by srun, or set TF_CONFIG; --strategy=one_device and mirrored ignore "
                         "both") from None
    host_of_worker = [host for host, tasks_on_host in zip(hosts, tasks, strict=True) for _ in range(tasks_on_host)]
    ports = _ports(variables, job, step, count)
    addresses = tuple(itertools.starmap(join_address, zip(host_of_worker, ports, strict=True)))
    return sum(tasks[:node]) + local, addresses


def expand_hosts(text: str) -> list[str]:
    """The names of the hosts in a host list of Slurm's, as `scontrol show hostnames` prints them.

    Args:
        text: Such as node[01-03,07],gpu5 or rack[0-1]node[1-2].

    Returns:
        The names, in the order of the list.

    Raises:
        ValueError: if the text is not a host list.
    """
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if not parts or ",".join(parts) != text:
        raise ValueError(f"{text!r} is not a list of hosts")
    return [host for part in parts for host in _expand(part)]


def _expand(part: str) -> list[str]:
    """The names of the hosts of a part of a host list, such as rack[0-1]node[1-2]."""
    # Every second piece was in brackets.
    pieces = re.split(r"\[([^\]]*)\]", part)
    choices = [_numbers(piece) if index % 2 else [piece] for index, piece in enumerate(pieces)]
    if math.prod(map(len, choices)) > _MOST_HOSTS:
        raise ValueError(f"{part!r} is more hosts than Slurm allows")
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _numbers(text: str) -> list[str]:
    """["01", "02", "03", "07"] of 01-03,07: all numbers of a range have at least as many digits as its first one."""
    numbers = []
    for part in text.split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
        first, last, digits = (int(bounds[1]), int(bounds[2] or bounds[1]), len(bounds[1])) if bounds else (1, 0, 0)
        if not first <= last < first + _MOST_HOSTS:
            raise ValueError(f"{part!r} is not a range of host numbers")
        numbers += [f"{number:0{digits}d}" for number in range(first, last + 1)]
    return numbers


def expand_counts(text: str) -> list[int]:
    """[2, 2, 2, 1] of 2(x3),1.

    Args:
        text: As in SLURM_STEP_TASKS_PER_NODE.

    Returns:
        The number of tasks of each node.

    Raises:
        ValueError: if the text is not a list of counts.
    """
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part, re.ASCII)
        if not match or int(match[2] or 1) > _MOST_HOSTS:
            raise ValueError(f"{text!r} is not a list of tasks per node")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _ports(variables: Mapping[str, str], job: int, step: int, count: int) -> Sequence[int]:
    """A port for each worker, all different: several nodes may be one machine under several names."""
    text = variables.get("LOCKSTEP_PORT")
    if not text:
        first = job * _JOB_STRIDE + step * _STEP_STRIDE
        return [_PORTS[(first + worker) % len(_PORTS)] for worker in range(count)]
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1024 <= int(text) <= 65536 - count:
        raise UsageError(f"LOCKSTEP_PORT must be from 1024 to {65536 - count}, for {count} workers take the ports from "
                         f"there on; received {text!r}", "correct it, or unset it: the job's number then decides")
    return range(int(text), int(text) + count)
