"""Which worker of a job this process is, from TF_CONFIG or from Slurm. No TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os

from trainer.distributed import slurm_env
from trainer.errors import UsageError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


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
        return not all(address.rpartition(":")[0].strip("[]") in _LOOPBACK for address in self.addresses)

    def bypass_proxies(self) -> None:
        """Has TensorFlow's gRPC reach the job's own addresses directly, whatever proxy the environment names."""
        hosts = [address.rpartition(":")[0].strip("[]") for address in self.addresses]
        for name in ("no_proxy", "no_grpc_proxy"):
            known = [host for host in os.environ.get(name, os.environ.get("no_proxy", "")).split(",") if host]
            os.environ[name] = ",".join(dict.fromkeys([*known, *hosts]))


def read_cluster(strategy: str) -> Cluster:
    """Reads TF_CONFIG or, if it isn't set, the variables of a Slurm step of several tasks.

    Args:
        strategy: As in `--strategy`. one_device and mirrored ignore both; multi_worker takes a step of one task, too.

    Returns:
        The `Cluster`.

    Raises:
        UsageError: if the variables can't be read, or if --strategy=multi_worker finds none.
    """
    if strategy in ("one_device", "mirrored"):
        return Cluster()
    text = os.environ.get("TF_CONFIG")
    if text:
        return _of_tf_config(text)
    task = slurm_env.find_task(os.environ, 1 if strategy == "multi_worker" else 2)
    if task:
        rank, addresses = task
        return Cluster(rank, len(addresses), True, addresses)
    if strategy == "multi_worker":
        raise UsageError("--strategy=multi_worker needs TF_CONFIG, which isn't set, or a step of Slurm's",
                         "set TF_CONFIG on every worker, start them by srun, or leave --strategy out")
    return Cluster()


def _of_tf_config(text: str) -> Cluster:
    try:
        value = json.loads(text)
        workers, rank = value["cluster"]["worker"], int(value["task"]["index"])
        if set(value["cluster"]) != {"worker"}:
            raise ValueError(f"jobs other than worker: {', '.join(sorted(set(value['cluster']) - {'worker'}))}")
        if wrong := [address for address in workers if not _is_address(address)]:
            raise ValueError(f"{wrong[0]!r} is not host:port")
        if value["task"]["type"] != "worker" or not 0 <= rank < len(workers):
            raise ValueError(f"task {value['task']} is not one of {len(workers)} workers")
        return Cluster(rank, len(workers), True, tuple(workers))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"TF_CONFIG can't be read: {type(error).__name__}: {error}; received {text[:200]!r}",
                         'it looks like {"cluster": {"worker": ["host:port", …]}, '
                         '"task": {"type": "worker", "index": 0}}') from None


def _is_address(text: object) -> bool:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65536
