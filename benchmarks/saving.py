"""A save of `resnet50`'s 300 MB costs a training run 0.52 s (n = 20 saves, standard error 0.11 s).

Measured: batch 32, --steps=700, 247 ms a step; 2.6 % of a run that saves every 20 s. Machine: two cores of an AMD EPYC,
idle, no GPU.

    python benchmarks/saving.py [--model=resnet50] [--steps=150] [--every=8] [--interval=20]

The last lines are the table of benchmarks/RESULTS.md.

One run of the real trainer that saves often. Each call of the device loop takes about a second. The cost of a save is
the excess over the usual time of the steps from the beginning of the save to the end of the first call after it, less
the same excess for as long a time midway to the next save, when nothing was saved. Everything that saving does is in
this time: the copy, the writing beside the training, hashing, flushing. The cost is then put in relation to a save
every `--interval` seconds. All of it is measured within one run, because two runs differ by more than saving costs.
"""

import argparse
import concurrent.futures
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]


class Timeline:
    """Notes when a run calls its device loop and when it saves.

    It wraps a method of two objects that a `Run` documents as its attributes; no class of the trainer changes.

    Attributes:
        calls: (beginning, number of steps) of each call of the device loop.
        saves: (beginning, end) of each save; the end is when the checkpoint is on the disk.
    """

    def __init__(self):
        self.calls, self.saves = [], []
        self._waiter = concurrent.futures.ThreadPoolExecutor(1)

    def watch(self, run):
        """Begins to note what a run does.

        Args:
            run: A `trainer.run.Run` that hasn't trained yet.

        Returns:
            The same run.
        """
        train_steps, save = run.inner_loop.run, run.checkpoints.save

        def timed_steps(num_steps):
            self.calls.append((time.perf_counter(), num_steps))
            return train_steps(num_steps)

        def timed_save(step):
            began = time.perf_counter()
            save(step)
            self._waiter.submit(self._note_end, run, began)

        run.inner_loop.run, run.checkpoints.save = timed_steps, timed_save
        return run

    def close(self):
        """Waits until the end of each save is noted."""
        self._waiter.shutdown()

    def _note_end(self, run, began):
        run.checkpoints.wait_until_finished()  # of this save only: the next one begins after it
        self.saves.append((began, time.perf_counter()))


def excess(began, ended, calls, usual):
    """Sums up by how much the calls that a stretch of time touches, and the call after it, are longer than usual.

    Args:
        began, ended: The stretch of time, in seconds.
        calls: (beginning, the next call's beginning, steps) of each call.
        usual: Seconds a step.

    Returns:
        Seconds.
    """
    touched = [index for index, call in enumerate(calls) if call[1] > began and call[0] < ended]
    both = calls[touched[0]:touched[-1] + 2]
    return both[-1][1] - both[0][0] - sum(steps for _, _, steps in both) * usual


def main():
    """Prints what saves cost, as a sentence and as the table of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50", choices=("resnet50", "wide"), help="of benchmarks/models.py")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--steps", type=int, default=150, help="number of steps of the run")
    parser.add_argument("--every", type=float, default=8, help="seconds from one save to the next here")
    parser.add_argument("--interval", type=float, default=20, help="seconds from one save to the next in question")
    options = parser.parse_args()
    from trainer import loop
    from trainer.main import main as train
    from trainer.run import Run

    # The loop has no hook for a program that watches it: it makes its Run by this one name.
    with (tempfile.TemporaryDirectory() as scratch, contextlib.closing(Timeline()) as timeline,
          mock.patch.object(loop, "Run", lambda *arguments, **named: timeline.watch(Run(*arguments, **named)))):
        code = train(["--dataset=shapes", f"--model=benchmarks.models:{options.model}", f"--batch_size={options.batch}",
                      "--num_gpus=0", "--epochs=1000", "--eval_every_epochs=10000",
                      "--export=none", "--keep_checkpoints=2", f"--max_steps={options.steps}",
                      f"--checkpoint_every_minutes={options.every / 60}", f"--model_dir={scratch}/run"])
        if code:
            sys.exit(code)
    calls = [(began, after, steps) for (began, steps), (after, _) in itertools.pairwise(timeline.calls)][5:]
    saves = [(began, ended) for began, ended in timeline.saves if calls[0][0] < began and ended < calls[-2][0]]
    usual = statistics.median((after - began) / steps for began, after, steps in calls)
    long = statistics.median(end - start for start, end in saves)
    midway = [((start + end) / 2, (start + end) / 2 + long) for (_, start), (end, _) in itertools.pairwise(saves)]
    costs, idle_costs = ([excess(*stretch, calls, usual) for stretch in stretches] for stretches in (saves, midway))
    mean = statistics.mean(costs) - statistics.mean(idle_costs)
    error = (statistics.variance(costs) / len(costs) + statistics.variance(idle_costs) / len(idle_costs)) ** 0.5
    print(f"{usual * 1000:.1f} ms a step; a save takes {long:.2f} s beside the "
          f"training and costs {mean:.3f} s (n = {len(costs)}, standard error {error:.3f} s, from {min(costs):.2f} to "
          f"{max(costs):.2f}): {mean / options.interval:.2%} of a run that saves every {options.interval:g} s")
    print("| model | a step | a save, beside the training | costs | "
          f"of a run that saves every {options.interval:g} s |")
    print("|---|---|---|---|---|")
    print(f"| `{options.model}`, batch {options.batch}, `--steps={options.steps}` | {usual * 1000:.0f} ms | "
          f"{long:.1f} s | {mean:.2f} s (n = {len(costs)}, standard error {error:.2f} s) | "
          f"{100 * mean / options.interval:.1f} % |")


if __name__ == "__main__":
    main()
