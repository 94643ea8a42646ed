"""A save of `resnet50`'s 300 MB costs a training run 0.52 s (n = 20, standard error 0.11 s).

    python benchmarks/saving.py [--model=resnet50] [--steps=150] [--every=8] [--interval=20]

Claim: with --steps=700, batch 32, on two cores of an AMD EPYC, idle: 2.6 % of a run that saves every 20 s. The last
line printed is the row of benchmarks/RESULTS.md.

One run of the real trainer that saves often. Each call of the device loop takes about a second. The cost of a save is
the excess over the usual time of the steps from the beginning of the save to the end of the first call after it, less
the same excess for as long a time midway to the next save, when nothing was saved. Everything that saving does is in
this time: the copy, the writing beside the training, hashing, flushing. The cost is then put in relation to a save
every `--interval` seconds. All of it is measured within one run, because two runs differ by more than saving costs.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]


def record(owner, name, into):
    """Makes a method append when it began and ended, and its arguments, to a list."""
    method = getattr(owner, name)

    def timed(*arguments):
        began = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            into.append((began, time.perf_counter(), arguments))

    setattr(owner, name, timed)


def excess(began, ended, calls, usual):
    """By how many seconds the calls that a stretch of time touches, and the call after it, are longer than usual.

    Args:
        began, ended: The stretch of time, in seconds.
        calls: (beginning, the next call's beginning, steps) of each call.
        usual: Seconds a step.
    """
    touched = [index for index, call in enumerate(calls) if call[1] > began and call[0] < ended]
    both = calls[touched[0]:touched[-1] + 2]
    return both[-1][1] - both[0][0] - sum(steps for _, _, steps in both) * usual


def main():
    """Prints what saves cost, as a sentence and as the row of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50", choices=("resnet50", "wide"), help="of benchmarks/models.py")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--every", type=float, default=8, help="seconds from one save to the next here")
    parser.add_argument("--interval", type=float, default=20, help="seconds from one save to the next in question")
    options = parser.parse_args()
    from trainer.checkpoint import checkpoints, manager
    from trainer.main import main as train
    from trainer.train import inner_loop

    inner_calls, begun, written = [], [], []
    record(inner_loop.InnerLoop, "run", inner_calls)
    record(manager.CheckpointManager, "save", begun)
    record(checkpoints.Checkpoints, "save", written)
    with tempfile.TemporaryDirectory() as scratch:
        code = train(["--dataset=shapes", f"--model=benchmarks.models:{options.model}", f"--batch_size={options.batch}",
                      "--num_gpus=0", "--epochs=1000", "--eval_every_epochs=10000",
                      "--export=none", "--keep_checkpoints=2", f"--max_steps={options.steps}",
                      f"--checkpoint_every_minutes={options.every / 60}", f"--model_dir={scratch}/run"])
        if code:
            sys.exit(code)
    calls = [(call[0], after[0], call[2][1]) for call, after in itertools.pairwise(inner_calls)][5:]
    saves = [(first[0], last[1]) for first, last in zip(begun, written, strict=True)
             if calls[0][0] < first[0] and last[1] < calls[-2][0]]
    usual = statistics.median((after - began) / steps for began, after, steps in calls)
    long = statistics.median(end - start for start, end in saves)
    midway = [((start + end) / 2, (start + end) / 2 + long) for (_, start), (end, _) in itertools.pairwise(saves)]
    costs, idle_costs = ([excess(*stretch, calls, usual) for stretch in stretches] for stretches in (saves, midway))
    mean = statistics.mean(costs) - statistics.mean(idle_costs)
    error = (statistics.variance(costs) / len(costs) + statistics.variance(idle_costs) / len(idle_costs)) ** 0.5
    print(f"{usual * 1000:.1f} ms a step; a save takes {long:.2f} s beside the "
          f"training and costs {mean:.3f} s (n = {len(costs)}, standard error {error:.3f} s, from {min(costs):.2f} to "
          f"{max(costs):.2f}): {mean / options.interval:.2%} of a run that saves every {options.interval:g} s")
    print(f"| `{options.model}`, batch {options.batch}, `--steps={options.steps}` | {usual * 1000:.0f} ms | "
          f"{long:.1f} s | {mean:.2f} s (n = {len(costs)}, standard error {error:.2f} s) | "
          f"{100 * mean / options.interval:.1f} % |")


if __name__ == "__main__":
    main()
