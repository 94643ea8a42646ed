"""Two workers of one core each train at 1.08 times the speed of one process with two threads (0.99 – 1.17, n = 5).

Measured: `cnn3`, batch 128, the drawn images; the median ratio of n = 5 rounds, with its range. Machine: two cores of
an AMD EPYC, no GPU.

    python benchmarks/workers.py [--rounds=5] [--steps=600]

The last lines are those of benchmarks/RESULTS.md. The two jobs of a round run one after the other. Each job is the
whole command; its speed is the mean of its training after the first call, with the time for its metrics and TensorBoard
files in it. The one process uses both cores; each of the workers uses one.
"""

import argparse
import functools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(folder, steps, cores, environment):
    """Starts a trainer on some of the cores.

    Args:
        folder: The run's folder.
        steps: Number of steps.
        cores: The numbers of the cores that it may use.
        environment: Variables in addition to this process's own.

    Returns:
        The process.
    """
    arguments = ["--dataset=shapes", "--model=cnn3", "--batch_size=128", f"--max_steps={steps}", "--num_gpus=0",
                 "--export=none", "--eval_every_epochs=1000", "--checkpoint_every_minutes=0", f"--model_dir={folder}"]
    return subprocess.Popen([sys.executable, "-m", "trainer.main", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL,
                            env={**os.environ, **environment},
                            preexec_fn=functools.partial(os.sched_setaffinity, 0, cores))


def run(workers, steps, cores):
    """Runs a job to its end.

    Args:
        workers: Number of processes.
        steps: Number of steps.
        cores: The numbers of the cores that the workers share.

    Returns:
        (images a second, the last line of training metrics as a dict).
    """
    sockets = [socket.socket() for _ in range(workers)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{held.getsockname()[1]}" for held in sockets]
    for held in sockets:
        held.close()
    share = len(cores) // workers
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for rank in range(workers):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
            processes.append(start(folder, steps, cores[rank * share:(rank + 1) * share],
                                   {"TF_CONFIG": json.dumps(task)} if workers > 1 else {}))
        if any([process.wait() for process in processes]):  # noqa: C419  all of them are waited for
            sys.exit("a worker failed; see above")
        result = json.loads((Path(folder) / "result.json").read_text())
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        return result["images_per_second"], [line for line in lines if line["split"] == "train"][-1]


def range_text(values, form, unit=""):
    """Formats the range of some values.

    Args:
        values: The numbers.
        form: A format string for one of them.
        unit: What follows the last one.

    Returns:
        Text such as "13 to 14 %"; "13 %" if the least and the most are written alike.
    """
    least, most = form.format(min(values)), form.format(max(values))
    return f"{least}{unit}" if least == most else f"{least} to {most}{unit}"


def main():
    """Prints each round, and the lines of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of pairs of jobs")
    parser.add_argument("--steps", type=int, default=600, help="number of steps of each job")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    singles, pairs, reducing, waiting = [], [], [], []
    for index in range(1, options.rounds + 1):
        single, _ = run(1, options.steps, cores)
        pair, line = run(2, options.steps, cores)
        singles.append(single)
        pairs.append(pair)
        reducing.append(100 * line["all_reduce_share"])
        waiting.append(100 * line["waiting_share"])
        print(f"round {index}: one process {single:,.0f}, two workers {pair:,.0f} images/s: {pair / single:.2f} ×; of "
              f"a worker's step {waiting[-1]:.1f} % waiting, {reducing[-1]:.1f} % in the all-reduce", flush=True)
    ratios = [pair / single for pair, single in zip(pairs, singles, strict=True)]
    print(textwrap.fill(
        f"**{statistics.median(ratios):.2f} ×** ({min(ratios):.2f} – {max(ratios):.2f}), n = {len(ratios)}: "
        f"{range_text(pairs, '{:,.0f}', ' images/s')} beside {range_text(singles, '{:,.0f}')}. In a worker's step "
        f"{range_text(reducing, '{:.0f}', ' %')} go into the all-reduce, {range_text(waiting, '{:.1f}', ' %')} into "
        "waiting for the other.", 120, break_on_hyphens=False))


if __name__ == "__main__":
    main()
