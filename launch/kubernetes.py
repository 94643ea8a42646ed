"""`python -m launch.kubernetes --FLAGS -- --TRAINER_FLAGS`: prints the manifests of a job for `kubectl apply -f -`.

A pod per worker, all of one Indexed Job, whose completion index is the worker's number in TF_CONFIG. Kubernetes starts
jobs again, by the table of restart_policy.py. docs/kubernetes.md says what the cluster must have first.
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from launch import kubernetes_objects
from launch.cli import misfits, never_again, parse, require
from trainer.config import Config
from trainer.errors import UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code, say_exactly

# Flag to (pattern, most letters, the pattern as a user reads it).
_NAME = {"name": (r"[a-z]([-a-z0-9]*[a-z0-9])?", 63, "small letters, digits and hyphens, beginning with a letter"),
         "namespace": (r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63, "small letters, digits and hyphens"),
         **dict.fromkeys(("claim", "data_claim"), (r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", 253,
                                                   "small letters, digits, hyphens and dots")),
         "image": (r"[A-Za-z0-9][\w./:@-]*", 4096, "an image's reference, such as registry/lockstep:1"),
         "memory": (r"[1-9]\d*(Mi|Gi|Ti|M|G|T)", 20, "a number and Mi, Gi or Ti, such as 8Gi")}
# Folders of the container that can't be mounted over: the system's and the image's own, and the one for scratch files.
_TAKEN = ("/app", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/tmp", "/usr", "/var")


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.kubernetes --name=N --image=I --claim=C -- TRAINER FLAGS: prints manifests for kubectl."""

    name: str = option("", "of the job, its service and its policy")
    image: str = option("", "reference of the image that the Dockerfile makes, as the nodes find it")
    claim: str = option("", "the PersistentVolumeClaim that --model_dir lies on; with several workers one that many "
                        "nodes may mount (ReadWriteMany)")
    mount: str = option("/data", "where --claim is mounted")
    data_claim: str = option("", "another PersistentVolumeClaim, for --data_dir; it is mounted read-only")
    data_mount: str = option("/dataset", "where --data_claim is mounted")
    namespace: str = option("", "default: kubectl's own")
    num_workers: int = option(2, "number of pods, each with one worker", least=1, most=512)
    gpus_per_worker: int = option(0, "nvidia.com/gpu of each pod; 0: train on the CPU", least=0)
    cpus: float = option(4.0, "CPUs of each pod: its request and its limit", least=0.1)
    memory: str = option("8Gi", "memory of each pod: its request and its limit")
    port: int = option(2222, "port on which workers listen", least=1024, most=65535)
    max_restarts: int = option(3, "start again this often; pods that the cluster itself took away don't count", least=0)
    flavor: str = option("job", "job: a Job and a Service; jobset: a JobSet, whose controller must be installed, and "
                         "which starts all workers again together", choices=("job", "jobset"))

    def problems(self) -> list[str]:
        """All that is wrong with the values; checks what Kubernetes asks of names and paths, too."""
        problems = super().problems()
        problems += [f"--{name} is needed" for name in ("name", "image", "claim") if not getattr(self, name)]
        for name, (pattern, most, description) in _NAME.items():
            value = getattr(self, name)
            if value and (len(value) > most or not re.fullmatch(pattern, value, re.ASCII)):
                problems.append(f"--{name} must be {description}, of at most {most}; received {value!r}")
        longest = f"{kubernetes_objects.host(self, self.num_workers - 1)}-abcde"  # Kubernetes adds five letters
        if len(longest) > 63 and len(self.name) <= 63:
            problems.append(f"--name must leave room for the pods' names, such as {longest}, which may have 63 "
                            f"letters; received {self.name!r}, {len(longest) - 63} too many")
        mounts = {name: getattr(self, name) for name in ("mount", *(["data_mount"] if self.data_claim else []))}
        for name, value in mounts.items():
            if not _can_be_mounted(value):
                problems.append(f"--{name} must be a folder of its own, such as /data, not under {', '.join(_TAKEN)}; "
                                f"received {value!r}")
        if self.data_claim and (_is_under(self.mount, self.data_mount) or _is_under(self.data_mount, self.mount)):
            problems.append(f"--mount and --data_mount must lie apart; received {self.mount} and {self.data_mount}")
        return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Prints manifests as the command line says.

    Args:
        argv: The arguments after the program's name; None for the process's own.

    Returns:
        The exit code; see trainer/errors.py.
    """
    return run_to_exit_code(_print, sys.argv[1:] if argv is None else argv)


def _print(argv: Sequence[str]) -> None:
    options, _, config = parse(Options, argv)
    config = require_fit(options, config)
    say_exactly(_to_yaml(kubernetes_objects.objects(options, config)))


def require_fit(options: Options, config: Config) -> Config:
    """Checks the trainer's settings against the pods'.

    Returns:
        The trainer's settings with the pods' number of GPUs.

    Raises:
        UsageError: with all that doesn't fit.
    """
    workers, gpus, model_dir = options.num_workers, options.gpus_per_worker, config.model_dir
    problems = []
    if not _is_under(model_dir, options.mount) or PurePosixPath(model_dir) == PurePosixPath(options.mount):
        problems.append(f"the trainer's --model_dir must be a folder below {options.mount}, where --claim is mounted: "
                        f"all else is gone with the pod; received {model_dir!r}; "
                        f"say --model_dir={options.mount}/{options.name}")
    if options.data_claim and not _is_under(config.data_dir, options.data_mount):
        problems.append(f"--data_claim is mounted at {options.data_mount}, and the trainer's --data_dir isn't there; "
                        f"received {config.data_dir!r}; say --data_dir={options.data_mount}, or leave --data_claim out")
    if config.num_gpus not in (-1, gpus):
        problems.append(f"the trainer's --num_gpus must be the pods' --gpus_per_worker, {gpus}; received "
                        f"{config.num_gpus}; leave --num_gpus out")
    if workers == 1 and config.strategy == "multi_worker":
        problems.append("--strategy=multi_worker needs --num_workers of at least 2; received 1")
    config, misfit_problems = misfits(config, workers, gpus, "num_workers")
    require(problems + misfit_problems + never_again(config))
    return config


def _is_under(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder) and ".." not in PurePosixPath(path).parts


def _can_be_mounted(path: str) -> bool:
    taken = any(_is_under(path, folder) or _is_under(folder, path) for folder in _TAKEN)
    return bool(re.fullmatch(r"(/[\w.-]+)+", path)) and str(PurePosixPath(path)) == path and not taken \
        and ".." not in PurePosixPath(path).parts


def _to_yaml(objects: Sequence[dict[str, Any]]) -> str:
    try:
        import yaml
    except ImportError:
        raise UsageError("printing manifests needs PyYAML, which isn't installed",
                         "pip install 'lockstep-trainer[kubernetes]'") from None

    class Dumper(yaml.SafeDumper):
        """Quotes texts for kubectl, whose YAML takes 1e3 for a number and y for true; PyYAML's doesn't."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        quotes = None if re.fullmatch(r"[A-Za-z/][\w./-]+", text) else "'" if '"' in text else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)

    def write_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
        numbers = all(isinstance(item, int) for item in items)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=numbers)

    Dumper.add_representer(str, write_text)
    Dumper.add_representer(list, write_list)
    return yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, width=10**6, allow_unicode=True)


if __name__ == "__main__":
    run_as_process(main)
