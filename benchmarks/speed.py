"""Lockstep trains `cnn3` at 1.59 times the speed of Keras's `fit` (1.00 – 1.84, n = 5 rounds), in images/s.

Measured in the same rounds, batch 128, one replica: 0.95 times Orbit's speed (0.80 – 1.03) and 2.08 times PyTorch's
(1.80 – 2.28). On two logical CPUs 3.53 times that of `fit` (1.83 – 3.83) and 1.07 times Orbit's (1.06 – 1.16, n = 3).
Each figure is the median ratio of the rounds, with its range. Machine: two cores of an AMD EPYC, idle, no GPU.

    python benchmarks/speed.py --data_dir=FOLDER [--rounds=5] [--peer="NAME=python other.py --data_dir={data_dir}"] …

The last lines are the table of benchmarks/RESULTS.md. Ours is the mean speed of the whole of `trainer.main` (metrics,
TensorBoard and checkpoints written); a peer's is its best epoch. All run one after the other, round after round. A peer
prints a JSON line with images_per_second. FOLDER holds CIFAR-10's binary files.
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
FIT = (f"{sys.executable} benchmarks/keras_fit.py --data_dir={{data_dir}} --model={{model}} --batch_size={{batch}} "
       "--replicas={replicas} --epochs={epochs}")
CASES = (("cnn3", 128, 1), ("cnn3", 128, 2), ("cnn3", 128, 4), ("tiny", 8, 1), ("resnet20", 128, 1))
MODEL_TITLES = {"cnn3": "`cnn3`", "resnet20": "`resnet20`", "tiny": "next to no arithmetic (`benchmarks/models.py`)"}


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
    """Trains with a peer, in a process of its own.

    Args:
        command: The command line, with {data_dir}, {model}, {batch}, {replicas} and {epochs} where it takes them.
        data_dir, model, batch_size, replicas, epochs: As in `our_speed`.

    Returns:
        Images/s as the peer prints them, in the last line that is a JSON object; None if the peer has no such case.
    """
    if (model != "cnn3" and "{model}" not in command) or (replicas > 1 and "{replicas}" not in command):
        return None
    name = "benchmarks.models:tiny" if model == "tiny" and "benchmarks/keras_fit" in command else model
    words = shlex.split(command.format(data_dir=data_dir, model=name, batch=batch_size, replicas=replicas,
                                       epochs=epochs))
    answer = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads([line for line in answer.stdout.splitlines() if line.startswith("{")][-1])["images_per_second"]


def cell(rates, ours):
    """A peer's median rate, and the ratio of ours to it in the same round with its range, as text."""
    if None in rates:
        return "–"
    ratios = [own / rate for own, rate in zip(ours, rates, strict=True)]
    return f"{statistics.median(rates):,.0f}: {statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"


def main():
    """Prints the table of RESULTS.md, a row when its case is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="the folder of CIFAR-10's binary files")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--epochs", type=int, default=2, help="number of epochs of each run")
    parser.add_argument("--cases", default="", help="comma list of the cases, by number from 1; default: all")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND",
                        help="another program beside `fit`, with {data_dir}, {model}, {batch}, {replicas} and {epochs} "
                        "where it takes them; may be given several times")
    options = parser.parse_args()
    peers = {"`fit`": FIT, **dict(peer.split("=", 1) for peer in options.peer)}
    print(f"| model | batch | replicas | ours, images/s | {' | '.join(f'{name}: ours by its' for name in peers)} |")
    print("|---" * (4 + len(peers)) + "|")
    chosen = [int(number) - 1 for number in options.cases.split(",")] if options.cases else range(len(CASES))
    for model, batch_size, replicas in (CASES[index] for index in chosen):
        case = (options.data_dir, model, batch_size, replicas, options.epochs)
        rounds = [(our_speed(*case), *(peer_speed(command, *case) for command in peers.values()))
                  for _ in range(options.rounds)]
        ours, *others = zip(*rounds, strict=True)
        cells = " | ".join(cell(rates, ours) for rates in others)
        print(f"| {MODEL_TITLES[model]} | {batch_size} | {replicas if replicas == 1 else f'{replicas} logical CPUs'} | "
              f"{statistics.median(ours):,.0f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
