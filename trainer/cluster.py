"""This process's place among the workers of a job, from TF_CONFIG. No TensorFlow."""

import dataclasses
import json
import os

from trainer.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A place in a job.

    Args:
        worker: This process's number, from 0; 0 is the chief, which writes what the job writes.
        workers: How many there are.
        distributed: Whether TF_CONFIG describes the job, be it of one worker.
        addresses: host:port of every worker, in their order.
    """

    worker: int = 0
    workers: int = 1
    distributed: bool = False
    addresses: tuple[str, ...] = ()


def read_cluster(strategy):
    """Reads TF_CONFIG.

    Args:
        strategy: As in `--strategy`; those of one process ignore TF_CONFIG.

    Returns:
        The `Cluster`.

    Raises:
        UsageError: if TF_CONFIG can't be read, or is needed and not there.
    """
    text = os.environ.get("TF_CONFIG")
    if strategy == "multi_worker" and not text:
        raise UsageError("--strategy=multi_worker needs TF_CONFIG, which isn't set",
                         "set TF_CONFIG on every worker, or leave --strategy out")
    if not text or strategy in ("one_device", "mirrored"):
        return Cluster()
    try:
        value = json.loads(text)
        workers, index = value["cluster"]["worker"], int(value["task"]["index"])
        if value["task"]["type"] != "worker" or not 0 <= index < len(workers):
            raise ValueError(f"task {value['task']} is not one of {len(workers)} workers")
        return Cluster(index, len(workers), True, tuple(workers))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"TF_CONFIG can't be read: {type(error).__name__}: {error}; received {text[:200]!r}",
                         'it looks like {"cluster": {"worker": ["host:port", …]}, '
                         '"task": {"type": "worker", "index": 0}}') from None
