"""How long one sum over two workers takes, by its size: what the model of cost in BUILD_NOTES.md is made of.

    python benchmarks/allreduce.py [--workers=2] [--rounds=200]

Workers on this machine, each on cores of its own, through the same call that sums gradients in training. Medians over
calls of the slowest worker, and the line through them: latency and bytes a second.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIZES = (4, 2**16, 490_292, 2**20, 2**22, 2**24, 102_546_848)  # the third is cnn3's vector, the last ResNet-50's

WORKER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from trainer.distributed import runtime
from trainer.distributed.cluster import read_cluster
from trainer.config import Config
from trainer.process.tf_import import tf
devices = runtime.start(Config(num_gpus=0), read_cluster("auto"))
sizes, rounds, found = json.loads(sys.argv[2]), int(sys.argv[3]), []
for size in sizes:
    vector = tf.zeros([size // 4])
    @tf.function
    def reduce(vector):
        def replica(x):
            return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(x))[0]
        return devices.strategy.experimental_local_results(devices.strategy.run(replica, args=(vector,)))[0]
    times = []
    for _ in range(max(5, min(rounds, int(rounds * 2**20 / size)))):
        began = time.perf_counter()
        reduce(vector).numpy()
        times.append(time.perf_counter() - began)
    found.append(sorted(times)[len(times) // 2])
print(json.dumps(found))
"""


def measure(workers, rounds):
    """Seconds for each of `SIZES`, of the slowest worker."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    cores, jobs = sorted(os.sched_getaffinity(0)), []
    share = max(1, len(cores) // workers)
    for index in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        mine = [cores[number % len(cores)] for number in range(index * share, (index + 1) * share)]
        jobs.append(subprocess.Popen(
            [sys.executable, "-c", WORKER, str(ROOT), json.dumps(SIZES), str(rounds)], stdout=subprocess.PIPE,
            text=True, env={**os.environ, "TF_CONFIG": json.dumps(task)},
            preexec_fn=lambda mine=mine: os.sched_setaffinity(0, mine)))
    ends = [json.loads(job.communicate()[0].splitlines()[-1]) for job in jobs]
    return [max(times) for times in zip(*ends, strict=True)]


def main():
    """Prints a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    for size, seconds in zip(SIZES, measure(options.workers, options.rounds), strict=True):
        print(f"{size:>12,} bytes {1e3 * seconds:8.3f} ms  {size / seconds / 1e6:8.0f} MB/s")


if __name__ == "__main__":
    main()
