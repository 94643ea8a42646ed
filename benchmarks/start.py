"""From the command to the first step of `cnn3` it takes 2.4 s (n = 3), half of it for the import of TensorFlow.

Measured: 2.37 s on one CPU, and 3.71 s (3.68 – 3.72) with XLA on the path that GPUs take. Eight replicas of `resnet20`
with XLA take 93 s in one process on two cores, 107 s in eight processes that share these cores (n = 1).

    python benchmarks/start.py [--models=cnn3,resnet20] [--rounds=3]

The last lines are those of benchmarks/RESULTS.md. Each start is a process of its own, or two or eight. The parts are of
one process: the interpreter and its imports, the model with its optimizer, tracing the device loop, and its first call,
which compiles, less a later one. "From the command" is `python -m trainer.main`, or `python -m launch.local
--num_workers=N`, to the time that stands in the first line of metrics.jsonl. With XLA, logical CPUs are used as GPUs
are (tests/support/gpu_like.py); what CUDA adds to a start isn't in these figures.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUPPORT = [str(ROOT / "tests/support/gpu_like_site"), str(ROOT / "tests/support")]
PARTS = """
import json, sys, time
began, replicas, model, xla = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
from trainer.config import Config
from trainer.distributed import runtime
from trainer.distributed.cluster import Cluster
from trainer.data.pipeline import open_feed
from trainer.data.sources import shapes
from trainer.plan import Job, make_plan
from trainer.train.state import TrainState
from trainer.train.step.train_loop import TrainLoop
times = [time.time()]
config = Config(dataset="shapes", model=model, batch_size=64, num_gpus=0, virtual_devices=replicas, xla=xla)
started = runtime.start(config, Cluster())
data = shapes.render_dataset(0, train=640, test=50)
times.append(time.time())
job = Job(config, make_plan(config, data.train.size, replicas), started, data)
state = TrainState(job)
loop = TrainLoop(job, state, open_feed(job, first_step=0))
times.append(time.time())
loop.trace()
times.append(time.time())
for _ in range(2):
    loop(1).loss.numpy()
    times.append(time.time())
imports, _, build, trace, first, later = (after - before for before, after in zip([began, *times], times))
print(json.dumps([imports, build, trace, max(0.0, first - later)]))
"""


def environment(xla):
    """The environment of a start, in which CPUs are used as GPUs are if XLA is on."""
    path = [str(ROOT), *(SUPPORT if xla else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "CUDA_VISIBLE_DEVICES": "-1"}


def in_parts(model, replicas, xla):
    """Starts a process.

    Args:
        model: Name of the model.
        replicas: Number of logical CPUs.
        xla: Whether XLA is on, and CPUs are used as GPUs are.

    Returns:
        Seconds: (imports, model and optimizer, trace, compilation).
    """
    words = [str(time.time()), str(replicas), model, "on" if xla else "off"]
    done = subprocess.run([sys.executable, "-c", PARTS, *words], cwd=ROOT, env=environment(xla), check=True, text=True,
                          stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def from_the_command(model, replicas, xla, processes=False):
    """Runs a command for a step.

    Args:
        model, replicas, xla: As in `in_parts`.
        processes: Whether each replica is a process of its own.

    Returns:
        Seconds from the command to the end of its first step.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--dataset=shapes", f"--model={model}", "--batch_size=64", "--max_steps=1", "--log_every_steps=1",
                 "--num_gpus=0", "--export=none", f"--xla={'on' if xla else 'off'}", f"--model_dir={folder}/run"]
        words = (["launch.local", f"--num_workers={replicas}", "--", *flags] if processes else
                 ["trainer.main", f"--virtual_devices={replicas}", *flags])
        began = time.time()
        subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=environment(xla), check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(Path(folder, "run/metrics.jsonl").read_text().splitlines()[0])["time"] - began


def seconds(values):
    """Median, least and most as text."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


def main():
    """Prints the table of RESULTS.md, a row when it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="cnn3,resnet20", help="comma list of models")
    parser.add_argument("--rounds", type=int, default=3, help="number of starts of each kind")
    options = parser.parse_args()
    print("| model | replicas | imports | model, optimizer | trace | compile | from the command |")
    print("|---|---|---|---|---|---|---|")
    for model in options.models.split(","):
        for xla in (False, True):
            title = f"`{model}`{', XLA, as GPUs' if xla else ''}"
            for replicas in (1, 2, 8):
                parts = zip(*(in_parts(model, replicas, xla) for _ in range(options.rounds)), strict=True)
                whole = [from_the_command(model, replicas, xla) for _ in range(options.rounds)]
                cells = [*(f"{statistics.median(values):.2f}" for values in parts), seconds(whole)]
                print(f"| {title} | {replicas} | {' | '.join(cells)} |", flush=True)
            for replicas in (2, 8):
                whole = [from_the_command(model, replicas, xla, processes=True) for _ in range(options.rounds)]
                print(f"| {title} | {replicas} processes | | | | | {seconds(whole)} |", flush=True)


if __name__ == "__main__":
    main()
