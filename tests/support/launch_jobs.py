"""Starting jobs of several workers by a launcher, and finding their processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from conftest import environment

from trainer.reporting import jsonl

FLAGS = ("--dataset=shapes", "--model=small_models:smooth", "--batch_size=48", "--max_steps=1200", "--optimizer=sgd",
         "--learning_rate=0.05", "--eval_every_epochs=1.7", "--log_every_steps=10", "--num_gpus=0", "--export=none",
         "--checkpoint_every_steps=100", "--ledger", "--model_dir=run")


def launch(folder, *words, module="launch.local", flags=FLAGS, **more):
    """Starts a launcher: its own words, then the trainer's."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-m", module, *words, "--", *flags], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                            env=environment(**more))


def finish(job, code, timeout=200):
    """Waits for a launcher's end, which must have this code. Returns (stdout, stderr)."""
    out, err = job.communicate(timeout=timeout)
    assert job.returncode == code, f"{job.returncode}\n{out}\n{err}"
    return out, err


def workers_in(folder):
    """Number to process id of the workers that run in a folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and Path(os.readlink(entry / "cwd")) == folder and \
                    b"trainer.main" in (entry / "cmdline").read_bytes():
                variables = dict(part.partition("=")[::2] for part in
                                 (entry / "environ").read_text(errors="replace").split("\0"))
                found[json.loads(variables["TF_CONFIG"])["task"]["index"]] = int(entry.name)
        except (OSError, KeyError):
            continue
    return found


def wait_for_step(folder, step, seconds=120):
    """Waits until a run has reported a step."""
    path, deadline = folder / "run/metrics.jsonl", time.monotonic() + seconds
    while not path.exists() or not any(line["step"] >= step for line in jsonl.read(path)):
        assert time.monotonic() < deadline, f"no step {step} in {seconds} s"
        time.sleep(0.05)


def send(folder, worker, number):
    """Sends a signal to a worker."""
    os.kill(workers_in(folder)[worker], number)


def end_all(folder):
    """Kills what is left of a job."""
    for pid in workers_in(folder).values():
        os.kill(pid, signal.SIGKILL)


def free_ports(count):
    """Ports of this machine that nobody uses just now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
