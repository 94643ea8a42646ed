"""Devices, strategy, precision and XLA: what a run computes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.device_kind import DeviceKind
from trainer.distributed.devices import choice, record
from trainer.errors import UsageError
from trainer.process import host, tf_import
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.distributed.cluster import Cluster

_strategies = 0  # that this process has made with several replicas


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What this process computes on, and its part of the job.

    Args:
        strategy: TensorFlow's strategy, started.
        devices: Names of this process's devices, one per local replica.
        replicas: Number of replicas of the whole job.
        worker: This process's rank among the workers, from 0; worker 0 is the chief.
        workers: Number of workers.
        precision: float32, bfloat16 or float16.
        xla: Whether steps are compiled with XLA.
        kind: What the kind of the devices implies.
        physical: The human-readable name of each physical device.
        warnings: What the user should know about the devices, a sentence each.
    """

    strategy: tf.distribute.Strategy
    devices: tuple[str, ...]
    replicas: int
    worker: int
    workers: int
    precision: str
    xla: bool
    kind: DeviceKind
    physical: tuple[str, ...] = ("CPU",)
    warnings: tuple[str, ...] = ()

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the job writes."""
        return self.worker == 0

    @property
    def replica_ids(self) -> range:
        """The ids, in the whole job, of this process's replicas."""
        local = len(self.devices)
        return range(self.worker * local, (self.worker + 1) * local)

    def record(self) -> dict[str, str]:
        """What decides the last bits of what this process computes, as devices/record.py describes it."""
        return record.of(self.physical, self.kind, self.precision)

    def sentence(self) -> str:
        """The human-readable description of the devices."""
        kind = self.kind.type
        logical = "logical " if self.replicas > 1 and kind == "CPU" and self.workers == 1 else ""
        on_workers = f" on {self.workers} workers" if self.workers > 1 else ""
        count = self.replicas
        return (f"{count} {logical}{kind}{'s' if count > 1 else ''}{on_workers}, {self.precision}, "
                f"XLA {'on' if self.xla else 'off'}")

    def peak_memory(self) -> dict[str, int]:
        """The most bytes that each of this process's GPUs has held; {} on CPUs."""
        if not self.kind.cuda:
            return {}
        names = [name.removeprefix("/device:") for name in self.devices]
        return {name: int(tf.config.experimental.get_memory_info(name)["peak"]) for name in names}

    def advice(self) -> list[str]:
        """What would be faster on these devices, a sentence each."""
        lines = []
        if self.kind.tells_of_bfloat16 and self.precision == "float32" and host.multiplies_bfloat16():
            lines.append("this processor multiplies bfloat16: --precision=bfloat16 is faster (cnn3: 1.56 times)")
        local = len(self.devices)
        if self.kind.processes_from and local >= self.kind.processes_from and self.workers == 1:
            lines.append(f"one process traces and compiles the step for all {local} devices: a process for each starts "
                         "sooner (python -m launch.local --num_workers=0 -- and the same flags but --num_gpus)")
        return lines


def start(config: Config, cluster: Cluster, chosen: choice.Devices | None = None) -> Runtime:
    """Starts the strategy, with all workers of the job. Once per process.

    Args:
        config: The settings.
        cluster: The workers of the job.
        chosen: The devices; None to choose them.

    Returns:
        The `Runtime`.

    Raises:
        DeviceError: if a device that was asked for is missing.
        UsageError: if there are more devices than the strategy takes.
    """
    if cluster.distributed and config.virtual_devices > 1:
        raise UsageError("several workers take a CPU or whole GPUs each; received "
                         f"--virtual_devices={config.virtual_devices}", "leave --virtual_devices out")
    tf_import.several_workers = cluster.workers > 1
    chosen = chosen or choice.choose(config)
    strategy, names = _strategy(config, cluster, chosen)
    if config.strategy == "one_device" and strategy.num_replicas_in_sync != 1:
        raise UsageError(f"--strategy=one_device has one replica; {len(names)} devices were chosen",
                         "add --num_gpus=1")
    return Runtime(strategy=strategy, devices=names, replicas=strategy.num_replicas_in_sync, worker=cluster.worker,
                   workers=cluster.workers, precision=chosen.precision, xla=chosen.xla, kind=chosen.kind,
                   physical=chosen.names, warnings=chosen.warnings)


def _strategy(config: Config, cluster: Cluster,
              chosen: choice.Devices) -> tuple[tf.distribute.Strategy, tuple[str, ...]]:
    """(strategy, names of this process's devices)."""
    kind = chosen.kind
    if cluster.distributed:
        accelerators = {"GPU": len(chosen.names)} if kind.type == "GPU" else {}
        implementation = tf.distribute.experimental.CommunicationImplementation[kind.communication]
        workers = tf.train.ClusterSpec({"worker": list(cluster.addresses)})
        strategy = tf.distribute.MultiWorkerMirroredStrategy(tf.distribute.cluster_resolver.SimpleClusterResolver(
            workers, task_type="worker", task_id=cluster.worker, num_accelerators=accelerators, rpc_layer="grpc"),
            tf.distribute.experimental.CommunicationOptions(implementation=implementation))
        return strategy, tuple(name[name.index("/device:"):] for name in strategy.extended.worker_devices)
    names = tuple(f"/device:{kind.type}:{index}" for index in range(len(tf.config.list_logical_devices(kind.type))))
    one = config.strategy == "one_device" or (config.strategy == "auto" and len(names) == 1)
    names = names[:1] if one else names
    return one_process_strategy(names, kind, one, shared=config.virtual_devices > 1), names


def one_process_strategy(names: Sequence[str], kind: DeviceKind, one: bool,
                         shared: bool = False) -> tf.distribute.Strategy:
    """The strategy of a process that works alone.

    Args:
        names: The names of its devices.
        kind: What the kind of the devices implies.
        one: Whether the strategy is that of one device; `names` then has one element.
        shared: Whether several of the devices are parts of one physical device.
    """
    global _strategies
    if one:
        return tf.distribute.OneDeviceStrategy(names[0])
    if _strategies:
        # TensorFlow numbers collectives anew in each strategy, and confuses those of two strategies of one process.
        tf.distribute.MirroredStrategy._collective_key_base += 100
    _strategies += 1
    collective = kind.collectives and (kind.shares_device or not shared)
    # With None, TensorFlow 2.21 takes its collectives, with NCCL between GPUs.
    return tf.distribute.MirroredStrategy(
        names, cross_device_ops=None if collective else tf.distribute.ReductionToOneDevice())
