"""Reading images: how fast, how soon after a stop, in how much memory.

    python benchmarks/input.py speed  [--images=2000] [--rounds=5]     beside a bare loop of tf.io.decode_jpeg
    python benchmarks/input.py resume [--records=1000000] [--rounds=3]   the first step, fresh and at 90 % of an epoch
    python benchmarks/input.py memory [--gigabytes=20]                   the most memory of a run over large records

Everything is made in a temporary folder (TMPDIR says where) and removed. The part `speed` reads the same files in
every round, in turn: the bare loop (read, decode), then folder and records as training reads them (read, decode,
random crop, resize to 224, flip, batch of 128), all with as many threads as there are cores. Cold means that the
files were dropped from the page cache before; that needs no rights, but a disk behind has a cache of its own.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests"), str(HERE.parent / "tests/support")]

from image_files import encode, figures  # noqa: E402
from PIL import Image  # noqa: E402

from trainer.config import Config  # noqa: E402
from trainer.data import order  # noqa: E402
from trainer.data.dataset import load  # noqa: E402
from trainer.data.records import external_shards  # noqa: E402
from trainer.distributed.runtime import tf  # noqa: E402  keeps back what TensorFlow says while it is imported
from trainer.process.cpu import cores  # noqa: E402

_BATCH = 128


def photo(number, width, height, noise=9):
    """An image with shapes, gradients and grain; about as many bytes a pixel as a photograph."""
    rng = np.random.default_rng(number)
    image = Image.fromarray(figures(10, number % 50)[0][number % 10]).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, noise, (height, width, 1)).astype(np.int16)
    return np.clip(np.asarray(image).astype(np.int16) + grain, 0, 255).astype(np.uint8)


def drop(paths):
    """Takes files out of the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def with_threads(data):
    """A data set with a pool of its own, as training's pipelines have."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores()
    options.autotune.enabled = False
    return data.with_options(options).prefetch(4)


def bare(paths):
    """Images a second of the bare loop."""
    data = tf.data.Dataset.from_tensor_slices(list(map(str, paths))).map(
        lambda path: tf.io.decode_jpeg(tf.io.read_file(path), 3), num_parallel_calls=cores(), deterministic=True)
    began = time.perf_counter()
    count = sum(1 for _ in with_threads(data))
    return count / (time.perf_counter() - began)


def ours(split):
    """Images a second as training reads them, over one epoch's whole batches."""
    steps = split.size // _BATCH
    ids, seeds = order.batches(split.order(0, _BATCH), _BATCH, 1, 0, 0, steps)
    data = split.read(tf.data.Dataset.from_tensor_slices((ids, seeds)), cores())
    began = time.perf_counter()
    count = sum(_BATCH for _ in with_threads(data))
    return count / (time.perf_counter() - began)


def speed(options, root):
    """Prints medians, and the ratios to the bare loop of the same round."""
    for number in range(options.images):
        path = root / "d" / ("test" if number < 20 else "train") / f"class {number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        wide, tall = (500, 375) if number % 3 else (375, 500)
        path.write_bytes(encode(photo(number, wide, tall), "JPEG", quality=90))
    paths = sorted((root / "d/train").glob("*/*.jpg"))
    subprocess.run([sys.executable, "-m", "trainer", "prepare", f"--data_dir={root / 'd'}", f"--out={root / 'r'}"],
                   check=True, cwd=HERE.parent)
    config = {"augment": ("crop", "flip"), "image_size": 224, "model_dir": "/none"}
    splits = {kind: load(Config(dataset=kind, data_dir=str(root / place), **config)).train
              for kind, place in (("folder", "d"), ("records", "r"))}
    files = {"folder": paths, "records": sorted((root / "r").glob("train-*"))}
    mean = statistics.mean(path.stat().st_size for path in paths)
    print(f"{len(paths):,} JPEGs of 500 × 375, {mean / 1e3:.0f} kB each")
    for state in ("warm", "cold"):
        rates = {"bare loop": [], "folder": [], "records": []}
        for number in range(options.rounds + 1):  # the first one is thrown away
            for kind, taken in rates.items():
                if state == "cold":
                    drop(files.get(kind, paths))
                rate = bare(paths) if kind == "bare loop" else ours(splits[kind])
                taken += [rate] if number else []
        for kind, taken in rates.items():
            ratios = [mine / base for mine, base in zip(taken, rates["bare loop"], strict=True)]
            print(f"{state} {kind:<10} {statistics.median(taken):7,.0f} images/s ({min(taken):,.0f} – "
                  f"{max(taken):,.0f}), {statistics.median(ratios):.2f} × the bare loop ({min(ratios):.2f} – "
                  f"{max(ratios):.2f}), n = {len(taken)}", flush=True)


def write_records(folder, name, shards, records, contents):
    """Records of others' making: contents in turn, labels 0 to 9."""
    folder.mkdir(exist_ok=True)
    made = [tf.train.Example(features=tf.train.Features(feature={
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 10]))})).SerializeToString()
        for number, data in enumerate(contents)]
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(folder / f"{name}-{shard:05d}-of-{shards:05d}")) as writer:
            for number in range(shard, records, shards):
                writer.write(made[number % len(made)])


FIRST_STEP = """
import os, sys, time
sys.path.insert(0, {root!r})
from trainer.distributed import runtime
from trainer.distributed.cluster import Cluster
from trainer.config import Config
from trainer.data.pipeline import open_feed
from trainer.data.dataset import load
from trainer.plan import Job, make_plan
config = Config(dataset="records", data_dir={data!r}, num_gpus=0, epochs=2, image_size=32)
devices = runtime.start(config, Cluster())
began = time.perf_counter()
data = load(config)
plan = make_plan(config, data.train.size, 1)
feed = open_feed(Job(config, plan, devices, data), first_step=int({share} * data.train.size / config.batch_size))
next(feed.iterators[0])
print(time.perf_counter() - began)
os._exit(sys.stdout.flush() or 0)
"""


def resume(options, root):
    """Prints seconds from the index to the first batch, in processes of their own."""
    contents = [encode(image) for image in figures(100)[0]]
    write_records(root / "r", "train", 64, options.records, contents)
    write_records(root / "r", "test", 1, 100, contents)
    external_shards.make_index(root / "r", root / "r")
    for share in (0, 0.9):
        taken = [float(subprocess.run([sys.executable, "-c", FIRST_STEP.format(
            root=str(HERE.parent), data=str(root / "r"), share=share)], check=True, text=True,
            capture_output=True).stdout) for _ in range(options.rounds)]
        print(f"{options.records:,} records, first batch at {share:.0%} of an epoch: {statistics.median(taken):.2f} s "
              f"({min(taken):.2f} – {max(taken):.2f}), n = {len(taken)}", flush=True)


def memory(options, root):
    """Prints the most resident memory of a training run over records of about a megabyte."""
    contents = [encode(photo(number, 1600, 1200, 14), "JPEG", quality=93) for number in range(20)]
    count = int(options.gigabytes * 1e9 / np.mean([len(data) for data in contents]))
    write_records(root / "r", "train", 128, count, contents)
    write_records(root / "r", "test", 1, 100, contents)
    size = sum(path.stat().st_size for path in (root / "r").iterdir())
    external_shards.make_index(root / "r", root / "r")
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "trainer.main", "--dataset=records", f"--data_dir={root / 'r'}", "--epochs=1",
                    f"--model_dir={root / 'run'}", "--image_size=64", "--num_gpus=0", "--export=none"], check=True,
                   cwd=HERE.parent)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{size / 1e9:.1f} GB in {count:,} records, one epoch in {time.perf_counter() - began:.0f} s: "
          f"{most / 2**20:.2f} GiB of resident memory at most")


def main():
    """Runs the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("speed", "resume", "memory"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        {"speed": speed, "resume": resume, "memory": memory}[options.part](options, Path(scratch))


if __name__ == "__main__":
    main()
