"""What saving costs: a model of 25 million parameters, with and without a checkpoint every 20 seconds.

    python benchmarks/saving.py [--rounds=3] [--seconds=120] [--every=20]

Runs the real command in turn, without and with saves, and compares the steps per second of the whole
stretch between the first and the last line of metrics, in which everything that saving costs is.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def speed(folder, steps, every):
    """(steps per second, saves, bytes of a checkpoint) of a run."""
    words = ["--dataset=shapes", "--model=saving_model:wide", "--batch_size=128", f"--max_steps={steps}",
             "--num_gpus=0", "--log_every_steps=10", "--eval_every_epochs=1000", "--export=none",
             "--keep_checkpoints=2", f"--checkpoint_every_minutes={every / 60:.6f}", f"--model_dir={folder}"]
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    subprocess.run([sys.executable, "-m", "trainer.main", *words], check=True, env=environment,
                   stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train" and line["step"] >= 30]
    first, last = train[0], train[-1]
    newest = max((folder / "checkpoints").glob("step-*"))
    size = sum(path.stat().st_size for path in newest.iterdir())
    return (last["step"] - first["step"]) / (last["time"] - first["time"]), last["time"] - first["time"], size


def main():
    """Prints a line a round, and the median."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120, help="how long a run trains, about")
    parser.add_argument("--every", type=float, default=20, help="seconds from one save to the next")
    options = parser.parse_args()
    costs = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        rate, _, size = speed(scratch / "probe", 60, 0)
        steps = 30 + 10 * round(options.seconds * rate / 10)
        print(f"{size / 1e6:.0f} MB a checkpoint, {steps} steps of {1 / rate:.3f} s", flush=True)
        for number in range(options.rounds):
            without, seconds, _ = speed(scratch / f"without-{number}", steps, 0)
            saving, longer, _ = speed(scratch / f"saving-{number}", steps, options.every)
            costs.append(1 - saving / without)
            print(f"without saves {without:.4f} steps/s ({seconds:.1f} s), with {saving:.4f} ({longer:.1f} s): saving "
                  f"costs {costs[-1]:.2%}", flush=True)
    print(f"median {statistics.median(costs):.2%} ({min(costs):.2%} to {max(costs):.2%}), n = {len(costs)}")


if __name__ == "__main__":
    main()
