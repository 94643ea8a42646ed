"""Two workers of one thread each beside one process of two threads: `cnn3`, batch 128, images a second.

    python benchmarks/workers.py [--rounds=5] [--steps=600]

In turn, in one run, on an idle machine. Each job is the whole command, on the drawn images; its speed is the mean of
its training after the first call, with the time for its metrics and TensorBoard files in it. One process has as many
threads as it may use cores; each of the workers may use one.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(folder, steps, cores, environment):
    """Starts a trainer that may use some cores."""
    words = ["--dataset=shapes", "--model=cnn3", "--batch_size=128", f"--max_steps={steps}", "--num_gpus=0",
             "--export=none", "--eval_every_epochs=1000", "--checkpoint_every_minutes=0", f"--model_dir={folder}"]
    return subprocess.Popen([sys.executable, "-m", "trainer.main", *words], cwd=ROOT, stdout=subprocess.DEVNULL,
                            env={**os.environ, **environment}, preexec_fn=lambda: os.sched_setaffinity(0, cores))


def run(workers, steps, cores):
    """Images a second, and the last line of training metrics, of a job."""
    sockets = [socket.socket() for _ in range(workers)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    share = len(cores) // workers
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for index in range(workers):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            jobs.append(start(folder, steps, cores[index * share:(index + 1) * share],
                              {"TF_CONFIG": json.dumps(task)} if workers > 1 else {}))
        if any([job.wait() for job in jobs]):  # noqa: C419  all of them are waited for
            sys.exit("a job failed; see above")
        result = json.loads((Path(folder) / "result.json").read_text())
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        return result["images_per_second"], [line for line in lines if line["split"] == "train"][-1]


def main():
    """Prints each round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    cores, ratios = sorted(os.sched_getaffinity(0))[:2], []
    for number in range(options.rounds):
        one, _ = run(1, options.steps, cores)
        two, line = run(2, options.steps, cores)
        ratios.append(two / one)
        print(f"round {number + 1}: one process {one:,.0f}, two workers {two:,.0f} images/s: {two / one:.2f} ×; of a "
              f"worker's step {line['waiting_share']:.1%} waiting, {line['all_reduce_share']:.1%} in the all-reduce",
              flush=True)
    print(f"two workers: {statistics.median(ratios):.2f} × one process ({min(ratios):.2f} – {max(ratios):.2f}), "
          f"n = {len(ratios)}")


if __name__ == "__main__":
    main()
