"""The Kubernetes objects of a job: its pods, how they find each other, who may reach them, and who starts again."""

import dataclasses
import json
import math

from launch.restart_policy import starts_again
from trainer.config import Config
from trainer.errors import Stopped

UID = 10001  # the image's user; see Dockerfile
CONTAINER = "trainer"
# What container runtimes say of a container that they couldn't start, and of one that was lost when its node went
# down. The trainer never ends with these.
RUNTIME_CODES = (128, 255)
# A signal is obeyed within ten seconds, or one step; the rest is for a volume that is slow to write to.
GRACE_SECONDS = 60


def objects(options, config):
    """Everything that a job needs in the cluster but its volumes, in the order in which it is to be made.

    Args:
        options: The launcher's `Options`.
        config: The trainer's `Config`, as it fits them.

    Returns:
        A list of Kubernetes objects, as dicts.
    """
    found = [_network_policy(options)]  # there before the first pod is
    if options.flavor == "jobset":
        return [*found, _jobset(options, config)]
    if options.num_workers > 1:
        found.append(_service(options))
    return [*found, _object(options, "batch/v1", "Job", _job(options, config, options.max_restarts))]


def host(options, worker):
    """The host name that Jobs and JobSets give to a worker's pod."""
    return f"{options.name}-{worker}" if options.flavor == "job" else f"{options.name}-workers-0-{worker}"


def failure_policy():
    """What follows from how a pod ended, by the table of restart_policy.py.

    The first rule that fits decides. A pod that fits none counts against the limit: lost devices (69), lost workers
    (70), death by a signal.

    Returns:
        A `podFailurePolicy`, as a dict.
    """
    again = {code for code in range(1, 256) if starts_again(code)}
    return {"rules": [
        # The cluster took the pod away: it was preempted, or its node drained or lost.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        # And when it takes one, that one asks all others to stop, too.
        {"action": "Ignore", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [Stopped.code]}},
        # All codes but those, for 1 (a defect) is none that helps to start again, either.
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn",
                                              "values": sorted({*again, *RUNTIME_CODES})}}]}


def _object(options, version, kind, spec):
    place = {"namespace": options.namespace} if options.namespace else {}
    return {"apiVersion": version, "kind": kind,
            "metadata": {"name": options.name, **place, "labels": _labels(options)}, "spec": spec}


def _labels(options):
    """What tells the pods of this job from all others."""
    return {"app.kubernetes.io/name": "lockstep", "app.kubernetes.io/instance": options.name}


def _network_policy(options):
    """Workers have no password and no encryption: only they may reach each other."""
    pods = {"matchLabels": _labels(options)}
    # Between GPUs data may go through NCCL, which chooses ports of its own.
    ports = {} if options.gpus_per_worker else {"ports": [{"protocol": "TCP", "port": options.port}]}
    among_us = [{"from": [{"podSelector": pods}], **ports}] if options.num_workers > 1 else []
    return _object(options, "networking.k8s.io/v1", "NetworkPolicy",
                   {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": among_us})


def _service(options):
    """Gives each pod its name. No pod is ready before it has found the others."""
    return _object(options, "v1", "Service", {
        "clusterIP": "None", "publishNotReadyAddresses": True, "selector": _labels(options),
        "ports": [{"name": "grpc", "protocol": "TCP", "port": options.port}]})


def _jobset(options, config):
    """A job in which the first failure that counts makes an end of all pods, and the set starts them again."""
    return _object(options, "jobset.x-k8s.io/v1alpha2", "JobSet", {
        "network": {"enableDNSHostnames": True, "subdomain": options.name, "publishNotReadyAddresses": True},
        "failurePolicy": {"maxRestarts": options.max_restarts, "rules": [
            {"name": "notAgain", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]},
        "replicatedJobs": [{"name": "workers", "replicas": 1, "template": {
            "metadata": {"labels": _labels(options)}, "spec": _job(options, config, 0)}}]})


def _job(options, config, restarts):
    """One pod per worker, with a count of failures for each.

    When one worker fails, all others end with 70. Counted together, one failure would be as many as there are
    workers, and the wait before the next start, which doubles with each, would soon be ten minutes. Counted by index,
    it is one for each. An index that may not start again leaves nothing for the others to do.
    """
    return {"completionMode": "Indexed", "completions": options.num_workers, "parallelism": options.num_workers,
            "backoffLimitPerIndex": restarts, "maxFailedIndexes": 0, "podFailurePolicy": failure_policy(),
            "template": {"metadata": {"labels": _labels(options)}, "spec": _pod(options, config)}}


def _pod(options, config):
    mounts, volumes = _volumes(options)
    together = options.num_workers > 1
    gpus = {"nvidia.com/gpu": options.gpus_per_worker} if options.gpus_per_worker else {}
    resources = {"cpu": _cpus(options.cpus), "memory": options.memory, **gpus}
    container = {
        "name": CONTAINER, "image": options.image, "command": ["python", "-m", "trainer.main"],
        # $(NAME) in arguments is Kubernetes' to replace; $$ is a $.
        "args": [word.replace("$", "$$") for word in words(config)],
        "env": _environment(options),
        **({"ports": [{"name": "grpc", "protocol": "TCP", "containerPort": options.port}]} if together else {}),
        # The same for both, so that these pods are the last that a crowded node takes away.
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}},
        # The last words, which are the cause and the fix, go into the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts}
    # Clusters often keep other pods off their GPU nodes by this taint.
    taint = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"restartPolicy": "Never",  # a failure policy needs it: pods are replaced, not restarted
            **({"subdomain": options.name} if together and options.flavor == "job" else {}),
            "terminationGracePeriodSeconds": GRACE_SECONDS, "automountServiceAccountToken": False,
            "enableServiceLinks": False, **({"tolerations": taint} if gpus else {}),
            "securityContext": {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID,
                                "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container], "volumes": volumes}


def _volumes(options):
    """(the container's mounts, the pod's volumes): what is to last, and the places that must be writable."""
    places = [("model-dir", options.mount, {"persistentVolumeClaim": {"claimName": options.claim}})]
    if options.data_claim:
        places.append(("data-dir", options.data_mount,
                       {"persistentVolumeClaim": {"claimName": options.data_claim, "readOnly": True}}))
    places.append(("tmp", "/tmp", {"emptyDir": {}}))
    if options.gpus_per_worker:
        # NCCL passes data through shared memory, of which containers have 64 MiB.
        places.append(("shm", "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}))
    return ([{"name": name, "mountPath": path, **({"readOnly": True} if name == "data-dir" else {})}
             for name, path, _ in places],
            [{"name": name, **source} for name, _, source in places])


def _environment(options):
    # Keras, Matplotlib and CUDA write below the home, and the root file system is read-only. TensorFlow counts the
    # node's cores, not the pod's share of them.
    found = [{"name": "HOME", "value": "/tmp"},
             {"name": "TF_NUM_INTRAOP_THREADS", "value": str(math.ceil(options.cpus))}]
    if options.gpus_per_worker:
        # What the driver compiles for the GPU at the first start is there for the next pod.
        found.append({"name": "CUDA_CACHE_PATH", "value": f"{options.mount.rstrip('/')}/.cuda-cache"})
    if options.num_workers == 1:
        return found
    addresses = [f"{host(options, worker)}.{options.name}:{options.port}" for worker in range(options.num_workers)]
    task = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": "INDEX"}})
    number = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    return [*found, {"name": "JOB_COMPLETION_INDEX", "valueFrom": number},
            # Replaced by what stands above; so the order counts.
            {"name": "TF_CONFIG", "value": task.replace('"INDEX"', "$(JOB_COMPLETION_INDEX)")}]


def _cpus(cpus):
    return str(int(cpus)) if cpus == int(cpus) else f"{round(cpus * 1000)}m"


def words(config):
    """The trainer's flags as the pods get them: just what was checked here, with flag files read.

    Args:
        config: The `Config`.

    Returns:
        A list of words.
    """
    default = Config()
    values = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(Config)]
    return [f"--{name}={','.join(value) if isinstance(value, tuple) else value}" for name, value in values
            if value != getattr(default, name)]
