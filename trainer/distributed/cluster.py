"""Which worker of a job this process is, from TF_CONFIG or from Slurm. No TensorFlow."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
from collections.abc import Mapping
from typing import Any

from trainer.distributed import slurm_env
from trainer.distributed.wire import is_address, split_address
from trainer.errors import UsageError

_CHIEFS = ("chief", "master")  # the names that clouds give to worker 0, where it has one of its own
_FIX = ('it looks like {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}; a chief or '
        "master is worker 0, and the workers follow it")
# What parameter servers need and this program has not: (why, what to do instead).
_OTHER_TASKS = {
    "ps": ("there are no parameter servers: all workers hold all weights",
           "leave the ps replicas out of the job's specification; chief and workers train without them"),
    "evaluator": ("no task only evaluates: the chief does, after each epoch",
                  "leave the evaluator replica out of the job's specification")}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a job, and which of them this process is.

    Args:
        worker: This process's rank, from 0; worker 0 is the chief, which writes what the job writes.
        workers: Number of workers.
        distributed: Whether TF_CONFIG or Slurm describes the job; True also for a job of one worker.
        addresses: host:port of every worker, by rank.
    """

    worker: int = 0
    workers: int = 1
    distributed: bool = False
    addresses: tuple[str, ...] = ()

    @property
    def crosses_machines(self) -> bool:
        """Whether a worker is reached by another address than this machine's own."""
        return not all(map(_is_loopback, self.addresses))

    def bypass_proxies(self) -> None:
        """Has TensorFlow's gRPC reach the job's own addresses directly, whatever proxy the environment names."""
        hosts = [split_address(address)[0] for address in self.addresses]
        for name in ("no_proxy", "no_grpc_proxy"):
            known = [host for host in os.environ.get(name, os.environ.get("no_proxy", "")).split(",") if host]
            os.environ[name] = ",".join(dict.fromkeys([*known, *hosts]))


def _is_loopback(address: str) -> bool:
    host = split_address(address)[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_cluster(strategy: str) -> Cluster:
    """Reads TF_CONFIG or, where that names no cluster, the variables of a Slurm step of several tasks.

    Args:
        strategy: As in `--strategy`. one_device and mirrored ignore both; multi_worker takes a job of one worker, too,
            which is a process of its own otherwise.

    Returns:
        The `Cluster`.

    Raises:
        UsageError: if the variables can't be read, if they give this process another task than training, or if
            --strategy=multi_worker finds none.
    """
    if strategy in ("one_device", "mirrored"):
        return Cluster()
    least = 1 if strategy == "multi_worker" else 2
    cluster = _of_tf_config(os.environ.get("TF_CONFIG", ""))
    if cluster:
        return cluster if cluster.distributed and cluster.workers >= least else Cluster()
    task = slurm_env.find_task(os.environ, least)
    if task:
        rank, addresses = task
        return Cluster(rank, len(addresses), True, addresses)
    if strategy == "multi_worker":
        raise UsageError("--strategy=multi_worker needs a TF_CONFIG that names a cluster, or a step of Slurm's",
                         "set TF_CONFIG on every worker, start them by srun, or leave --strategy out")
    return Cluster()


def _of_tf_config(text: str) -> Cluster | None:
    """What TF_CONFIG says; None if it names no cluster, as where a cloud runs a single process."""
    if not text.strip():
        return None
    try:
        value = json.loads(text)
        jobs, task = value.get("cluster") or {}, value.get("task") or {}
        jobs = {name: addresses for name, addresses in jobs.items() if addresses}
        _refuse_other_tasks(task.get("type"), jobs)
        addresses = _addresses(jobs)
        if not addresses:
            return None
        alone = len(addresses) == 1 and not task
        return Cluster(0 if alone else _rank(task, jobs), len(addresses), not alone, tuple(addresses))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise UsageError(f"TF_CONFIG can't be read: {reason}; received {text[:200]!r}", _FIX) from None


def _refuse_other_tasks(kind: Any, jobs: Mapping[str, Any]) -> None:
    """Refuses what parameter servers need; an evaluator that others have beside them concerns only itself."""
    for name in (kind, *(["ps"] if "ps" in jobs else [])):
        if name in _OTHER_TASKS:
            why, fix = _OTHER_TASKS[name]
            raise UsageError(f"TF_CONFIG {'makes this process' if name == kind else 'has'} {name}: {why}", fix)


def _addresses(jobs: Mapping[str, Any]) -> list[str]:
    """The addresses of all workers, the chief's first."""
    chiefs = [name for name in _CHIEFS if name in jobs]
    if others := sorted(set(jobs) - {*_CHIEFS, "worker", *_OTHER_TASKS}):
        raise ValueError(f"it has jobs other than chief and worker: {', '.join(others)}")
    if len(chiefs) > 1 or any(len(jobs[name]) > 1 for name in chiefs):
        raise ValueError("it has more than one chief")
    addresses: list[str] = []
    for name in (*chiefs, *(["worker"] if "worker" in jobs else [])):
        if not isinstance(jobs[name], list):
            raise ValueError(f"its {name} is no list")
        addresses += jobs[name]
    if wrong := [address for address in addresses if not is_address(address)]:
        raise ValueError(f"{wrong[0]!r} is not host:port; an IPv6 address as host stands in [ ]")
    if len(set(addresses)) < len(addresses):
        raise ValueError("an address stands in it twice")
    return addresses


def _rank(task: Mapping[str, Any], jobs: Mapping[str, Any]) -> int:
    """This process's number among the workers."""
    kind, index = task.get("type"), task.get("index")
    if isinstance(index, str) and index.isascii() and index.isdecimal():
        index = int(index)
    if kind not in (*_CHIEFS, "worker") or type(index) is not int or not 0 <= index < len(jobs.get(kind, ())):
        raise ValueError(f"its task {dict(task) or 'is missing, which'} is not one of its cluster")
    return index + (any(name in jobs for name in _CHIEFS) if kind == "worker" else 0)
