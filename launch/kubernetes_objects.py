"""The Kubernetes objects of a job: its pods, their names, what may reach them, and when they start again."""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
from typing import TYPE_CHECKING, Any

from launch.restart_policy import starts_again
from trainer.config import Config
from trainer.distributed.wire import TOKEN, join_address
from trainer.errors import Stopped

if TYPE_CHECKING:
    from launch.kubernetes import Options

UID = 10001  # the image's user; see Dockerfile
CONTAINER = "trainer"
# The codes that container runtimes give to a container that they couldn't start, and to one that was lost when its node
# went down. The trainer never ends with these.
RUNTIME_CODES = (128, 255)
# A worker obeys a signal within ten seconds, or one step; the rest is for a volume that is slow to write to.
GRACE_SECONDS = 60


def objects(options: Options, config: Config) -> list[dict[str, Any]]:
    """Everything that a job needs in the cluster but its volumes.

    Args:
        options: The launcher's.
        config: The trainer's settings, checked against the options.

    Returns:
        Kubernetes objects as dicts, in the order in which they must be made.
    """
    made = [_network_policy(options)]  # in force before the first pod starts
    if options.num_workers > 1:
        made.append(_token(options))
    if options.flavor == "jobset":
        return [*made, _jobset(options, config)]
    if options.num_workers > 1:
        made.append(_service(options))
    return [*made, _object(options, "batch/v1", "Job", _job(options, config, options.max_restarts))]


def host(options: Options, rank: int) -> str:
    """The host name that Jobs and JobSets give to a worker's pod."""
    return f"{options.name}-{rank}" if options.flavor == "job" else f"{options.name}-workers-0-{rank}"


def failure_policy() -> dict[str, Any]:
    """What follows from how a pod ended, by the table of restart_policy.py.

    The first rule that fits decides. A pod that no rule fits counts against the limit: lost devices (69), lost workers
    (70), death by a signal.

    Returns:
        A `podFailurePolicy`, as a dict.
    """
    again = {code for code in range(1, 256) if starts_again(code)}
    return {"rules": [
        # The cluster took the pod away: it was preempted, or its node drained or lost.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        # The pod that is taken away asks the other workers to stop, too.
        {"action": "Ignore", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [Stopped.code]}},
        # All other codes, for another start doesn't help after 1 (a defect), either.
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn",
                                              "values": sorted({*again, *RUNTIME_CODES})}}]}


def _object(options: Options, version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    namespace = {"namespace": options.namespace} if options.namespace else {}
    return {"apiVersion": version, "kind": kind,
            "metadata": {"name": options.name, **namespace, "labels": _labels(options)}, "spec": spec}


def _labels(options: Options) -> dict[str, str]:
    """The labels that tell the pods of this job from all others."""
    return {"app.kubernetes.io/name": "lockstep", "app.kubernetes.io/instance": options.name}


def _network_policy(options: Options) -> dict[str, Any]:
    """Workers have no password and no encryption: only they may reach each other."""
    pods = {"matchLabels": _labels(options)}
    # Between GPUs data may go through NCCL, which chooses ports of its own.
    ports = {} if options.gpus_per_worker else {"ports": [{"protocol": "TCP", "port": options.port}]}
    between_workers = [{"from": [{"podSelector": pods}], **ports}] if options.num_workers > 1 else []
    return _object(options, "networking.k8s.io/v1", "NetworkPolicy",
                   {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": between_workers})


def _token(options: Options) -> dict[str, Any]:
    """What the workers of this job know, and no other pod: the trainer's LOCKSTEP_TOKEN."""
    secret = _object(options, "v1", "Secret", {})
    del secret["spec"]
    return {**secret, "type": "Opaque", "stringData": {"token": secrets.token_hex(32)}}


def _service(options: Options) -> dict[str, Any]:
    """Gives each pod its name, also while the pod isn't ready: workers need the names to find each other."""
    return _object(options, "v1", "Service", {
        "clusterIP": "None", "publishNotReadyAddresses": True, "selector": _labels(options),
        "ports": [{"name": "grpc", "protocol": "TCP", "port": options.port}]})


def _jobset(options: Options, config: Config) -> dict[str, Any]:
    """A job in which the first failure that counts ends all pods, and the set starts them again."""
    return _object(options, "jobset.x-k8s.io/v1alpha2", "JobSet", {
        "network": {"enableDNSHostnames": True, "subdomain": options.name, "publishNotReadyAddresses": True},
        "failurePolicy": {"maxRestarts": options.max_restarts, "rules": [
            {"name": "notAgain", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]},
        "replicatedJobs": [{"name": "workers", "replicas": 1, "template": {
            "metadata": {"labels": _labels(options)}, "spec": _job(options, config, 0)}}]})


def _job(options: Options, config: Config, restarts: int) -> dict[str, Any]:
    """One pod per worker, with a count of failures for each.

    When one worker fails, all others end with 70. If failures were counted for the whole job, one failure would count
    once for each worker, and the wait before the next start, which doubles with each count, would soon be ten minutes.
    Counted by index, it is one for each worker. If one index may not start again, the job fails: the other workers
    could do nothing without it.
    """
    return {"completionMode": "Indexed", "completions": options.num_workers, "parallelism": options.num_workers,
            "backoffLimitPerIndex": restarts, "maxFailedIndexes": 0, "podFailurePolicy": failure_policy(),
            "template": {"metadata": {"labels": _labels(options)}, "spec": _pod(options, config)}}


def _pod(options: Options, config: Config) -> dict[str, Any]:
    mounts, volumes = _volumes(options)
    several = options.num_workers > 1
    gpus = {"nvidia.com/gpu": options.gpus_per_worker} if options.gpus_per_worker else {}
    resources = {"cpu": _cpus(options.cpus), "memory": options.memory, **gpus}
    container = {
        "name": CONTAINER, "image": options.image, "command": ["python", "-m", "trainer.main"],
        # Kubernetes replaces $(NAME) in arguments; $$ is a $.
        "args": [word.replace("$", "$$") for word in words(config)],
        "env": _environment(options),
        **({"ports": [{"name": "grpc", "protocol": "TCP", "containerPort": options.port}]} if several else {}),
        # Requests equal to limits: these pods are the last that a crowded node takes away.
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}},
        # The container's last lines, which are the cause and the fix, go into the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts}
    # Clusters often keep other pods off their GPU nodes by this taint.
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"restartPolicy": "Never",  # a failure policy needs it: pods are replaced, not restarted
            **({"subdomain": options.name} if several and options.flavor == "job" else {}),
            "terminationGracePeriodSeconds": GRACE_SECONDS, "automountServiceAccountToken": False,
            "enableServiceLinks": False, **({"tolerations": tolerations} if gpus else {}),
            "securityContext": {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID,
                                "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container], "volumes": volumes}


def _volumes(options: Options) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the container's mounts, the pod's volumes): the claims, and the folders that must be writable."""
    mounted: list[tuple[str, str, dict[str, Any]]] = [
        ("model-dir", options.mount, {"persistentVolumeClaim": {"claimName": options.claim}})]
    if options.data_claim:
        mounted.append(("data-dir", options.data_mount,
                        {"persistentVolumeClaim": {"claimName": options.data_claim, "readOnly": True}}))
    mounted.append(("tmp", "/tmp", {"emptyDir": {}}))
    if options.gpus_per_worker:
        # NCCL passes data through shared memory, of which containers have 64 MiB.
        mounted.append(("shm", "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}))
    return ([{"name": name, "mountPath": path, **({"readOnly": True} if name == "data-dir" else {})}
             for name, path, _ in mounted],
            [{"name": name, **source} for name, _, source in mounted])


def _environment(options: Options) -> list[dict[str, Any]]:
    """The container's variables, in an order in which each is defined before another one uses it."""
    # Keras, Matplotlib and CUDA write below the home, and the root file system is read-only. TensorFlow counts the
    # node's cores, not the pod's share of them.
    variables = [{"name": "HOME", "value": "/tmp"},
                 {"name": "TF_NUM_INTRAOP_THREADS", "value": str(math.ceil(options.cpus))}]
    if options.gpus_per_worker:
        # The code that the driver compiles for the GPU at the first start is kept for the next pod.
        variables.append({"name": "CUDA_CACHE_PATH", "value": f"{options.mount.rstrip('/')}/.cuda-cache"})
    if options.num_workers == 1:
        return variables
    addresses = [join_address(f"{host(options, rank)}.{options.name}", options.port)
                 for rank in range(options.num_workers)]
    task = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": "INDEX"}})
    index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    return [*variables, {"name": "JOB_COMPLETION_INDEX", "valueFrom": index},
            {"name": TOKEN, "valueFrom": {"secretKeyRef": {"name": options.name, "key": "token"}}},
            # Kubernetes puts the value of JOB_COMPLETION_INDEX, which is defined before, into this one.
            {"name": "TF_CONFIG", "value": task.replace('"INDEX"', "$(JOB_COMPLETION_INDEX)")}]


def _cpus(cpus: float) -> str:
    """A number of CPUs as Kubernetes writes it: 4, or 500m for a half."""
    return str(int(cpus)) if cpus == int(cpus) else f"{round(cpus * 1000)}m"


def words(config: Config) -> list[str]:
    """The trainer's arguments as the pods get them: the settings that were checked here, with flag files read."""
    default = Config()
    values = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(Config)]
    return [f"--{name}={','.join(value) if isinstance(value, tuple) else value}" for name, value in values
            if value != getattr(default, name)]
