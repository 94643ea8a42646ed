"""This process's place among the workers of a job, from TF_CONFIG or from Slurm. No TensorFlow."""

import dataclasses
import json
import os

from trainer.distributed import slurm_env
from trainer.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A place in a job.

    Args:
        worker: This process's number, from 0; 0 is the chief, which writes what the job writes.
        workers: How many there are.
        distributed: Whether TF_CONFIG or Slurm describes the job, be it of one worker.
        addresses: host:port of every worker, in their order.
    """

    worker: int = 0
    workers: int = 1
    distributed: bool = False
    addresses: tuple[str, ...] = ()


def read_cluster(strategy):
    """Reads TF_CONFIG; where it isn't set, the variables of a Slurm step of several tasks.

    Args:
        strategy: As in `--strategy`; those of one process ignore both, and multi_worker takes a step of one task, too.

    Returns:
        The `Cluster`.

    Raises:
        UsageError: if what is there can't be read, or is needed and not there.
    """
    if strategy in ("one_device", "mirrored"):
        return Cluster()
    text = os.environ.get("TF_CONFIG")
    if text:
        return _of_tf_config(text)
    place = slurm_env.find_place(os.environ, 1 if strategy == "multi_worker" else 2)
    if place:
        worker, addresses = place
        return Cluster(worker, len(addresses), True, addresses)
    if strategy == "multi_worker":
        raise UsageError("--strategy=multi_worker needs TF_CONFIG, which isn't set, or a step of Slurm's",
                         "set TF_CONFIG on every worker, start them by srun, or leave --strategy out")
    return Cluster()


def _of_tf_config(text):
    try:
        value = json.loads(text)
        workers, index = value["cluster"]["worker"], int(value["task"]["index"])
        if set(value["cluster"]) != {"worker"}:
            raise ValueError(f"jobs other than worker: {', '.join(sorted(set(value['cluster']) - {'worker'}))}")
        if wrong := [address for address in workers if not _is_address(address)]:
            raise ValueError(f"{wrong[0]!r} is not host:port")
        if value["task"]["type"] != "worker" or not 0 <= index < len(workers):
            raise ValueError(f"task {value['task']} is not one of {len(workers)} workers")
        return Cluster(index, len(workers), True, tuple(workers))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"TF_CONFIG can't be read: {type(error).__name__}: {error}; received {text[:200]!r}",
                         'it looks like {"cluster": {"worker": ["host:port", …]}, '
                         '"task": {"type": "worker", "index": 0}}') from None


def _is_address(text):
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65536
