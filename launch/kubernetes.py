"""`python -m launch.kubernetes --FLAGS -- --TRAINER_FLAGS`: prints the manifests of a job for `kubectl apply -f -`.

A pod per worker, all of one Indexed Job, whose completion index is the worker's number in TF_CONFIG. Who starts again
is Kubernetes' business, by the table of restart_policy.py. docs/kubernetes.md says what is to be there first.
"""

import dataclasses
import re
import sys
from pathlib import PurePosixPath

from launch import kubernetes_objects
from launch.cli import misfits, never_again, parse, require
from trainer.errors import UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code

_NAME = {"name": (r"[a-z]([-a-z0-9]*[a-z0-9])?", 63, "small letters, digits and hyphens, beginning with a letter"),
         "namespace": (r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63, "small letters, digits and hyphens"),
         **dict.fromkeys(("claim", "data_claim"), (r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", 253,
                                                   "small letters, digits, hyphens and dots")),
         "image": (r"[A-Za-z0-9][\w./:@-]*", 4096, "an image's reference, such as registry/lockstep:1"),
         "memory": (r"[1-9]\d*(Mi|Gi|Ti|M|G|T)", 20, "a number and Mi, Gi or Ti, such as 8Gi")}
# Places in the container that are taken: what the system and the image have there, and the folder that can be written.
_TAKEN = ("/app", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/tmp", "/usr", "/var")


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.kubernetes --name=N --image=I --claim=C -- TRAINER FLAGS: prints manifests for kubectl."""

    name: str = option("", "of the job, its service and its policy")
    image: str = option("", "what the Dockerfile makes, as the nodes find it")
    claim: str = option("", "the PersistentVolumeClaim that --model_dir lies on; with several workers one that many "
                        "nodes may mount (ReadWriteMany)")
    mount: str = option("/data", "where it is mounted")
    data_claim: str = option("", "another PersistentVolumeClaim, for --data_dir; it is mounted read-only")
    data_mount: str = option("/dataset", "where that one is mounted")
    namespace: str = option("", "default: kubectl's own")
    num_workers: int = option(2, "pods, each with one worker", least=1, most=512)
    gpus_per_worker: int = option(0, "nvidia.com/gpu of each pod; 0: train on the CPU", least=0)
    cpus: float = option(4.0, "of each pod, reserved for it and its limit", least=0.1)
    memory: str = option("8Gi", "of each pod, reserved for it and its limit")
    port: int = option(2222, "on which workers listen", least=1024, most=65535)
    max_restarts: int = option(3, "start again this often; pods that the cluster itself took away don't count", least=0)
    flavor: str = option("job", "job: a Job and a Service; jobset: a JobSet, whose controller must be installed, and "
                         "which starts all workers again together", choices=("job", "jobset"))

    def problems(self):
        """See `Checked.problems`; adds what Kubernetes asks of names and places."""
        found = super().problems()
        found += [f"--{name} is needed" for name in ("name", "image", "claim") if not getattr(self, name)]
        for name, (pattern, most, words) in _NAME.items():
            value = getattr(self, name)
            if value and (len(value) > most or not re.fullmatch(pattern, value, re.ASCII)):
                found.append(f"--{name} must be {words}, of at most {most}; received {value!r}")
        longest = f"{kubernetes_objects.host(self, self.num_workers - 1)}-abcde"  # Kubernetes adds five letters
        if len(longest) > 63 and len(self.name) <= 63:
            found.append(f"--name must leave room for the pods' names, such as {longest}, which may have 63 letters; "
                         f"received {self.name!r}, {len(longest) - 63} too many")
        mounts = {name: getattr(self, name) for name in ("mount", *(["data_mount"] if self.data_claim else []))}
        for name, value in mounts.items():
            if not _is_place(value):
                found.append(f"--{name} must be a folder of its own, such as /data, not under {', '.join(_TAKEN)}; "
                             f"received {value!r}")
        if self.data_claim and (_is_under(self.mount, self.data_mount) or _is_under(self.data_mount, self.mount)):
            found.append(f"--mount and --data_mount must lie apart; received {self.mount} and {self.data_mount}")
        return found


def main(argv=None):
    """Prints manifests as the command line says.

    Args:
        argv: The words after the program's name; None for the process's own.

    Returns:
        The exit code; see trainer/errors.py.
    """
    return run_to_exit_code(_print, sys.argv[1:] if argv is None else argv)


def _print(argv):
    options, _, config = parse(Options, argv)
    config = require_fit(options, config)
    print(_to_yaml(kubernetes_objects.objects(options, config)), end="")


def require_fit(options, config):
    """Holds the trainer's settings against the pods'.

    Args:
        options: The `Options`.
        config: The trainer's `Config`.

    Returns:
        The `Config` with the pods' number of GPUs.

    Raises:
        UsageError: with all that doesn't fit.
    """
    workers, gpus, model_dir = options.num_workers, options.gpus_per_worker, config.model_dir
    found = []
    if not _is_under(model_dir, options.mount) or PurePosixPath(model_dir) == PurePosixPath(options.mount):
        found.append(f"the trainer's --model_dir must be a folder below {options.mount}, where --claim is mounted: all "
                     f"else is gone with the pod; received {model_dir!r}; "
                     f"say --model_dir={options.mount}/{options.name}")
    if options.data_claim and not _is_under(config.data_dir, options.data_mount):
        found.append(f"--data_claim is mounted at {options.data_mount}, and the trainer's --data_dir isn't there; "
                     f"received {config.data_dir!r}; say --data_dir={options.data_mount}, or leave --data_claim out")
    if config.num_gpus not in (-1, gpus):
        found.append(f"the trainer's --num_gpus must be the pods' --gpus_per_worker, {gpus}; received "
                     f"{config.num_gpus}; leave --num_gpus out")
    if workers == 1 and config.strategy == "multi_worker":
        found.append("--strategy=multi_worker needs --num_workers of at least 2; received 1")
    config, more = misfits(config, workers, gpus, "num_workers")
    require(found + more + never_again(config))
    return config


def _is_under(path, folder):
    return PurePosixPath(path).is_relative_to(folder) and ".." not in PurePosixPath(path).parts


def _is_place(path):
    taken = any(_is_under(path, folder) or _is_under(folder, path) for folder in _TAKEN)
    return bool(re.fullmatch(r"(/[\w.-]+)+", path)) and str(PurePosixPath(path)) == path and not taken \
        and ".." not in PurePosixPath(path).parts


def _to_yaml(objects):
    try:
        import yaml
    except ImportError:
        raise UsageError("printing manifests needs PyYAML, which isn't installed",
                         "pip install 'lockstep-trainer[kubernetes]'") from None

    class Dumper(yaml.SafeDumper):
        """As kubectl reads it, whose YAML takes 1e3 for a number and y for true; PyYAML's doesn't."""

        def ignore_aliases(self, data):
            return True

    def write_text(dumper, text):
        quotes = None if re.fullmatch(r"[A-Za-z/][\w./-]+", text) else "'" if '"' in text else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)

    def write_list(dumper, items):
        numbers = all(isinstance(item, int) for item in items)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=numbers)

    Dumper.add_representer(str, write_text)
    Dumper.add_representer(list, write_list)
    return yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, width=10**6, allow_unicode=True)


if __name__ == "__main__":
    run_as_process(main)
