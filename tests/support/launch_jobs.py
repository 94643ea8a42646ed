"""Starting jobs of several workers by a launcher, and finding their processes."""

import contextlib
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

FLAGS = ("--dataset=small_data:few", "--model=small_models:smooth", "--batch_size=48", "--max_steps=400",
         "--epochs=1e6", "--optimizer=sgd", "--learning_rate=0.05", "--eval_every_epochs=6", "--log_every_steps=10",
         "--num_gpus=0", "--export=none", "--checkpoint_every_steps=50", "--ledger", "--model_dir=run")


def launch(folder, *words, module="launch.local", flags=FLAGS, **more):
    """Starts a launcher with its own flags and the trainer's, and with more variables in its environment."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-m", module, *words, "--", *flags], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                            env=environment(**more))


def finish(job, code, timeout=200):
    """Waits for a launcher's end, whose exit code must be `code`. Returns (stdout, stderr)."""
    out, err = job.communicate(timeout=timeout)
    assert job.returncode == code, f"{job.returncode}\n{out}\n{err}"
    return out, err


def workers_in(folder):
    """Rank to process id of the workers that run in a folder."""
    pids = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and Path(os.readlink(entry / "cwd")) == folder and \
                    b"trainer.main" in (entry / "cmdline").read_bytes():
                variables = dict(part.partition("=")[::2] for part in
                                 (entry / "environ").read_text(errors="replace").split("\0"))
                pids[json.loads(variables["TF_CONFIG"])["task"]["index"]] = int(entry.name)
        except (OSError, KeyError):
            continue
    return pids


def wait_for_step(folder, step, seconds=400):
    """Waits until a run has reported a step."""
    path, deadline = folder / "run/metrics.jsonl", time.monotonic() + seconds
    while not path.exists() or not any(line["step"] >= step for line in jsonl.read(path)):
        assert time.monotonic() < deadline, f"no step {step} in {seconds} s"
        time.sleep(0.05)


def send(folder, rank, signum):
    """Sends a signal to a worker."""
    os.kill(workers_in(folder)[rank], signum)


def end_all(folder):
    """Kills the workers that are left of a job."""
    for pid in workers_in(folder).values():
        os.kill(pid, signal.SIGKILL)


def has_ipv6():
    """Whether this machine has IPv6's own address."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as tried:
        tried.bind(("::1", 0))
        return True
    return False


def free_ports(count):
    """Ports of this machine that no process uses just now."""
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports
