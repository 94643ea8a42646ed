"""A sum over two workers of one core each takes 1.0 ms for 4 bytes and 326 to 361 ms for ResNet-50's 102.5 MB.

Measured: the call that sums gradients in training, over workers that are processes on this machine, each on cores of
its own. Machine: two cores of an AMD EPYC, no GPU. The figure of a run is the median over the calls of the slowest
worker; n = 3 runs, given as the least to the most of them.

    python benchmarks/allreduce.py [--workers=2] [--rounds=200] [--runs=3]

The rows of each run give the latency and the bytes a second of the cost model in BUILD_NOTES.md. The last lines are
those of benchmarks/RESULTS.md.
"""

import argparse
import functools
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIZES = (4, 2**16, 490_292, 2**20, 2**22, 2**24, 102_546_848)  # the third is cnn3's vector, the last ResNet-50's
REPORTED = (4, 490_292, 2**22, 2**24, 102_546_848)  # the sizes in the line of RESULTS.md

WORKER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from trainer.distributed import runtime
from trainer.distributed.cluster import read_cluster
from trainer.config import Config
from trainer.process.tf_import import tf
strategy = runtime.start(Config(num_gpus=0), read_cluster("auto")).strategy
sizes, rounds, medians = json.loads(sys.argv[2]), int(sys.argv[3]), []
for size in sizes:
    vector = tf.zeros([size // 4])
    @tf.function
    def reduce(vector):
        def replica(x):
            return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(x))[0]
        return strategy.experimental_local_results(strategy.run(replica, args=(vector,)))[0]
    times = []
    for _ in range(max(5, min(rounds, int(rounds * 2**20 / size)))):
        began = time.perf_counter()
        reduce(vector).numpy()
        times.append(time.perf_counter() - began)
    medians.append(sorted(times)[len(times) // 2])
print(json.dumps(medians))
"""


def measure(workers, rounds):
    """Sums vectors of all sizes over workers, once.

    Args:
        workers: Number of processes.
        rounds: Number of calls for a size of up to 1 MiB; larger sizes take fewer.

    Returns:
        For each of `SIZES`, the median seconds of a call on the slowest worker.
    """
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{held.getsockname()[1]}" for held in sockets]
    for held in sockets:
        held.close()
    cores, processes = sorted(os.sched_getaffinity(0)), []
    share = max(1, len(cores) // workers)
    for rank in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        own_cores = [cores[index % len(cores)] for index in range(rank * share, (rank + 1) * share)]
        processes.append(subprocess.Popen(
            [sys.executable, "-c", WORKER, str(ROOT), json.dumps(SIZES), str(rounds)], stdout=subprocess.PIPE,
            text=True, env={**os.environ, "TF_CONFIG": json.dumps(task)},
            preexec_fn=functools.partial(os.sched_setaffinity, 0, own_cores)))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a worker failed; see above")
    medians = [json.loads(output.splitlines()[-1]) for output in outputs]
    return [max(times) for times in zip(*medians, strict=True)]


def size_text(size):
    """Formats a number of bytes.

    Args:
        size: Number of bytes.

    Returns:
        Text such as "4 bytes", "0.49 MB" or "102.5 MB".
    """
    return f"{size} bytes" if size < 1000 else f"{size / 1e6:.{2 if size < 1e6 else 1}f} MB"


def range_text(size, seconds):
    """Formats the times of all runs for one size.

    Args:
        size: Number of bytes.
        seconds: A time of each run.

    Returns:
        Text such as "1.07 to 1.13 ms"; "1.0 ms" if the least and the most are written alike.
    """
    # 4 bytes show the latency of the call alone, which a tenth of a millisecond describes.
    digits = 2 if size > 4 and max(seconds) < 2e-3 else 1 if max(seconds) < 1e-2 else 0
    least, most = (f"{1e3 * time:.{digits}f}" for time in (min(seconds), max(seconds)))
    return f"{least} ms" if least == most else f"{least} to {most} ms"


def main():
    """Prints a row for each size in each run, and the lines of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument("--rounds", type=int, default=200, help="number of calls for a size of up to 1 MiB")
    parser.add_argument("--runs", type=int, default=3, help="number of times that the workers are started")
    options = parser.parse_args()
    times = {size: [] for size in SIZES}
    for _ in range(options.runs):
        for size, seconds in zip(SIZES, measure(options.workers, options.rounds), strict=True):
            times[size].append(seconds)
            print(f"{size:>12,} bytes {1e3 * seconds:8.3f} ms  {size / seconds / 1e6:8.0f} MB/s", flush=True)
    figures = ", ".join(f"{size_text(size)} {range_text(size, times[size])}" for size in REPORTED)
    print(textwrap.fill(f"Medians of the call that sums a vector over {options.workers} workers, n = {options.runs}: "
                        f"{figures}.", 120, break_on_hyphens=False))


if __name__ == "__main__":
    main()
