"""Lockstep beside Keras's `fit`, in turn, on an idle machine: images/s and their ratio.

    python benchmarks/speed.py --data_dir=FOLDER [--rounds=5] [--peer="python other_program.py"]

Ours is the whole of `trainer.main` (metrics, TensorBoard and checkpoints written), its mean speed over the
run; the peer's is its best epoch. The peer gets --data_dir, --model, --batch_size, --replicas and --epochs,
and prints a JSON line with images_per_second. FOLDER holds CIFAR-10's binary files. `tiny` is a model with
next to no arithmetic: there the time per step is what the program costs.
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


def ours(data_dir, model, batch_size, replicas, epochs):
    """Images/s of `trainer.main`."""
    name = "benchmarks.models:tiny" if model == "tiny" else model
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "trainer.main", f"--data_dir={data_dir}", f"--model={name}",
                        f"--batch_size={batch_size}", "--num_gpus=0", f"--virtual_devices={replicas}",
                        f"--epochs={epochs}", "--export=none", f"--model_dir={folder}"],
                       cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(folder) / "result.json").read_text())["images_per_second"]


def peers(command, data_dir, model, batch_size, replicas, epochs):
    """Images/s of the peer."""
    name = "benchmarks.models:tiny" if model == "tiny" and "benchmarks/keras_fit" in command else model
    answer = subprocess.run([*shlex.split(command), f"--data_dir={data_dir}", f"--model={name}",
                             f"--batch_size={batch_size}", f"--replicas={replicas}", f"--epochs={epochs}"],
                            cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(answer.stdout.strip().splitlines()[-1])["images_per_second"]


def main():
    """Prints a line per case, in the form of RESULTS.md's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--peer", default=f"{sys.executable} benchmarks/keras_fit.py")
    options = parser.parse_args()
    print("| model | batch | replicas | ours, images/s | peer, images/s | ratio, median (least – most) |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        pairs = [(ours(options.data_dir, *case, options.epochs),
                  peers(options.peer, options.data_dir, *case, options.epochs)) for _ in range(options.rounds)]
        ratios = [mine / other for mine, other in pairs]
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {case[0]} | {case[1]} | {case[2]} | {mine:,.0f} | {other:,.0f} | {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} – {max(ratios):.2f}) |", flush=True)


if __name__ == "__main__":
    main()
