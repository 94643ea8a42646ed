"""The devices that the checks run on, and what checks have in common.

GPUs, or for `--devices=cpu` logical CPU devices that are used as GPUs are (tests/support/gpu_like.py), with small
models: that shows that the checks work, and nothing of a GPU.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / name) for name in (".", "tests", "tests/support", "tests/system")]

import forks  # noqa: E402
import gpu_like  # noqa: E402
from process_environment import environment  # noqa: E402

from trainer.distributed.devices import machine  # noqa: E402


class NotRun(Exception):
    """A check that this machine can't run; its text is the reason."""


@dataclasses.dataclass(frozen=True)
class Box:
    """Where a check runs.

    Args:
        like: Whether CPU devices stand for GPUs.
        folder: The check's own folder.
    """

    like: bool
    folder: Path

    @property
    def gpus(self):
        """Number of GPUs; 2 where CPU devices stand for them."""
        return 2 if self.like else len(machine.gpus(os.environ.get("CUDA_VISIBLE_DEVICES")))

    def need(self, count):
        """Ends the check where there are fewer GPUs."""
        if self.gpus < count:
            raise NotRun(f"needs {count} GPUs, there is {self.gpus}")

    def not_on_cpus(self, why):
        """Ends the check where CPU devices stand for GPUs."""
        if self.like:
            raise NotRun(why)

    def pick(self, of_gpus, of_cpus):
        """One of two values, such as a large and a small model."""
        return of_cpus if self.like else of_gpus

    def flags(self, count=1):
        """The trainer's flags for so many devices."""
        if self.like:
            return ["--num_gpus=0", f"--virtual_devices={count if count > 1 else 0}"]
        return [f"--num_gpus={count}"]

    @property
    def variables(self):
        """The environment of a command on these devices."""
        more = gpu_like.ENVIRONMENT if self.like else {
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(self.gpus))))}
        return environment(**more)

    def start(self, name, *words, **more):
        """Starts `python -m WORDS…` in a folder of that name; returns the process."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        pipes = {"cwd": folder, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if self.like:
            return forks.start(*words, more={**gpu_like.ENVIRONMENT, **more}, **pipes)
        return subprocess.Popen([sys.executable, "-m", *map(str, words)], env={**self.variables, **more}, **pipes)

    def run(self, name, *words, code=0, **more):
        """Runs `python -m WORDS…` in a folder of that name, which must end with `code`; returns (stdout, stderr)."""
        process = self.start(name, *words, **more)
        out, err = process.communicate()
        assert process.returncode == code, f"{' '.join(map(str, words))}: ended with {process.returncode}\n{out}{err}"
        assert "Traceback" not in err, err
        return out, err

    def lines(self, name):
        """The lines of a run's metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / name / "run/metrics.jsonl").read_text().splitlines()]

    def result(self, name):
        """A run's result.json."""
        return json.loads((self.folder / name / "run/result.json").read_text())
