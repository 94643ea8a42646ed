"""Lockstep trains `cnn3` at 1.37 times the speed of Keras's `fit` (1.13 – 1.91, n = 5 pairs), in images/s.

Measured: batch 128, one replica; 1.71 times (1.30 – 7.31) on two logical CPUs, and 3.97 times (3.39 – 5.20) at batch 8
with next to no arithmetic, where the program itself takes most of a step. Each figure is the median ratio of n = 5
pairs, with its range. Machine: two cores of an AMD EPYC, idle, no GPU.

    python benchmarks/speed.py --data_dir=FOLDER [--rounds=5] [--peer="python other_program.py"]

The last lines are the table of benchmarks/RESULTS.md. Ours is the mean speed of the whole of `trainer.main` (metrics,
TensorBoard and checkpoints written); the peer's is its best epoch. The two run one after the other. The peer takes
--data_dir, --model, --batch_size, --replicas and --epochs, and prints a JSON line with images_per_second. FOLDER holds
CIFAR-10's binary files.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CASES = (("cnn3", 128, 1), ("cnn3", 128, 2), ("tiny", 8, 1))
MODEL_TITLES = {"cnn3": "`cnn3`", "tiny": "next to no arithmetic (`benchmarks/models.py`)"}


def our_speed(data_dir, model, batch_size, replicas, epochs):
    """Trains with `trainer.main`, in a process of its own.

    Args:
        data_dir: The folder of CIFAR-10's binary files.
        model: "cnn3" or "tiny".
        batch_size: Images a step, over all replicas.
        replicas: Number of logical CPUs.
        epochs: Number of epochs.

    Returns:
        Mean images/s of the run.
    """
    name = "benchmarks.models:tiny" if model == "tiny" else model
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "trainer.main", f"--data_dir={data_dir}", f"--model={name}",
                        f"--batch_size={batch_size}", "--num_gpus=0", f"--virtual_devices={replicas}",
                        f"--epochs={epochs}", "--export=none", f"--model_dir={folder}"],
                       cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(folder) / "result.json").read_text())["images_per_second"]


def peer_speed(command, data_dir, model, batch_size, replicas, epochs):
    """Trains with the peer, in a process of its own.

    Args:
        command: The peer's command line, without the flags that it takes.
        data_dir, model, batch_size, replicas, epochs: As in `our_speed`.

    Returns:
        Images/s as the peer prints them, in the last line that is a JSON object.
    """
    name = "benchmarks.models:tiny" if model == "tiny" and "benchmarks/keras_fit" in command else model
    answer = subprocess.run([*shlex.split(command), f"--data_dir={data_dir}", f"--model={name}",
                             f"--batch_size={batch_size}", f"--replicas={replicas}", f"--epochs={epochs}"],
                            cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads([line for line in answer.stdout.splitlines() if line.startswith("{")][-1])["images_per_second"]


def main():
    """Prints the table of RESULTS.md, a row when its case is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="the folder of CIFAR-10's binary files")
    parser.add_argument("--rounds", type=int, default=5, help="number of pairs")
    parser.add_argument("--epochs", type=int, default=2, help="number of epochs of each run")
    parser.add_argument("--peer", default=f"{sys.executable} benchmarks/keras_fit.py",
                        help="command of the other program")
    options = parser.parse_args()
    print("| model | batch | replicas | ours, images/s | `fit`, images/s | ratio |")
    print("|---|---|---|---|---|---|")
    for model, batch_size, replicas in CASES:
        case = (options.data_dir, model, batch_size, replicas, options.epochs)
        pairs = [(our_speed(*case), peer_speed(options.peer, *case)) for _ in range(options.rounds)]
        ratios = [ours / peers for ours, peers in pairs]
        ours, peers = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {MODEL_TITLES[model]} | {batch_size} | {replicas if replicas == 1 else f'{replicas} logical CPUs'} | "
              f"{ours:,.0f} | {peers:,.0f} | {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} – {max(ratios):.2f}) |", flush=True)


if __name__ == "__main__":
    main()
