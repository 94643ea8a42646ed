"""Training reads image files at 0.95 times the speed of a bare loop of tf.io.decode_jpeg (0.92 – 0.97, n = 9).

Measured by `speed --rounds=9`: 2,390 images/s from a folder and 2,308 from records, warm, beside 2,528 of the bare loop
(medians of 9 rounds); 3,008 from records of 256 pixels. By `resume`: 1.01 s (0.92 – 1.12, n = 5) from the index of a
million records to the first batch, 0.90 s (0.87 – 0.96, n = 5) at 90 % of an epoch. By `memory`: 0.95 GiB resident at
most over 20.1 GB of records (n = 1). Machine: two cores of an AMD EPYC, idle, no GPU.

    python benchmarks/input.py speed  [--images=2000] [--rounds=5]       images/s beside the bare loop
    python benchmarks/input.py resume [--records=1000000] [--rounds=5]   the first batch, fresh and at 90 % of an epoch
    python benchmarks/input.py memory [--gigabytes=20]                   the most memory of a run over large records

The last lines of each part are those of benchmarks/RESULTS.md. Each part makes its files in a temporary folder (TMPDIR
says where) and removes them. The part `speed` reads the same files in every round: first the bare loop (read, decode),
then folder, records, and records of `prepare --resize_shorter=256` as training reads them (read, decode, random crop,
resize to 224, flip, batch of 128), all with as many threads as there are cores. Cold means that the files were dropped
from the page cache before; that needs no rights, but the disk has a cache of its own.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import textwrap
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
from trainer.distributed.runtime import tf  # noqa: E402  keeps back TensorFlow's messages during its import
from trainer.process.host import cores  # noqa: E402

_BATCH = 128
_SHARDS = 64  # of the records that `resume` reads


def wrapped(line):
    """Wraps a line as RESULTS.md does.

    Args:
        line: The line.

    Returns:
        The same words in lines of at most 120 characters.
    """
    return textwrap.fill(line, 120, break_on_hyphens=False)


def photo(index, width, height, noise=9):
    """Draws an image with shapes, gradients and grain, of about as many bytes a pixel as a photograph.

    Args:
        index: Which image; its seed.
        width, height: Its size in pixels.
        noise: Standard deviation of the grain, of 255.

    Returns:
        uint8 [height, width, 3].
    """
    rng = np.random.default_rng(index)
    image = Image.fromarray(figures(10, index % 50)[0][index % 10]).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, noise, (height, width, 1)).astype(np.int16)
    return np.clip(np.asarray(image).astype(np.int16) + grain, 0, 255).astype(np.uint8)


def drop(paths):
    """Takes files out of the page cache.

    Args:
        paths: The files.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def with_threads(data):
    """Gives a data set a thread pool of its own, as training's pipelines have.

    Args:
        data: A `tf.data.Dataset`.

    Returns:
        The same data set with as many threads as there are cores, and a prefetch of 4.
    """
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores()
    options.autotune.enabled = False
    return data.with_options(options).prefetch(4)


def decode(path):
    """Reads and decodes a file: one step of the bare loop.

    Args:
        path: A string tensor.

    Returns:
        uint8 [height, width, 3].
    """
    return tf.io.decode_jpeg(tf.io.read_file(path), 3)


def bare_speed(paths):
    """Runs the bare loop once.

    Args:
        paths: JPEG files.

    Returns:
        Images a second.
    """
    data = tf.data.Dataset.from_tensor_slices(list(map(str, paths))).map(
        decode, num_parallel_calls=cores(), deterministic=True)
    began = time.perf_counter()
    count = sum(1 for _ in with_threads(data))
    return count / (time.perf_counter() - began)


def training_speed(split):
    """Reads one epoch's whole batches as training reads them.

    Args:
        split: The training split of a `Dataset`.

    Returns:
        Images a second.
    """
    steps = split.size // _BATCH
    ids, seeds = order.batches(split.order(0, _BATCH), _BATCH, 1, 0, 0, steps)
    data = split.read(tf.data.Dataset.from_tensor_slices((ids, seeds)), cores())
    began = time.perf_counter()
    count = sum(_BATCH for _ in with_threads(data))
    return count / (time.perf_counter() - began)


def speed(options, root):
    """Prints medians, the ratios to the bare loop of the same round, and the table of RESULTS.md.

    Args:
        options: The flags; `images` and `rounds` count.
        root: An empty folder.
    """
    for index in range(options.images):
        path = root / "d" / ("test" if index < 20 else "train") / f"class {index % 10}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = (500, 375) if index % 3 else (375, 500)
        path.write_bytes(encode(photo(index, width, height), "JPEG", quality=90))
    paths = sorted((root / "d/train").glob("*/*.jpg"))
    for folder, more in (("r", []), ("s", ["--resize_shorter=256"])):
        subprocess.run([sys.executable, "-m", "trainer", "prepare", f"--data_dir={root / 'd'}",
                        f"--out={root / folder}", *more], check=True, cwd=HERE.parent)
    config = {"augment": ("crop", "flip"), "image_size": 224, "model_dir": "/none"}
    splits, files = {}, {}
    for kind, dataset, folder in (("folder", "folder", "d"), ("records", "records", "r"),
                                  ("256 pixels", "records", "s")):
        splits[kind] = load(Config(dataset=dataset, data_dir=str(root / folder), **config)).train
        files[kind] = paths if dataset == "folder" else sorted((root / folder).glob("train-*"))
    mean = statistics.mean(path.stat().st_size for path in paths)
    table = []
    for state in ("warm", "cold"):
        rates = {"bare loop": [], "folder": [], "records": [], "256 pixels": []}
        for index in range(options.rounds + 1):  # the first round is thrown away
            for kind, kind_rates in rates.items():
                if state == "cold":
                    drop(files.get(kind, paths))
                rate = bare_speed(paths) if kind == "bare loop" else training_speed(splits[kind])
                kind_rates += [rate] if index else []
        for kind, kind_rates in rates.items():
            ratios = [rate / bare for rate, bare in zip(kind_rates, rates["bare loop"], strict=True)]
            median = f"{statistics.median(kind_rates):,.0f}"
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"
            print(f"{state} {kind:<10} {median:>7} images/s ({min(kind_rates):,.0f} – {max(kind_rates):,.0f}), "
                  f"{ratio} × the bare loop, n = {len(kind_rates)}", flush=True)
            table.append(f"| {state}: {kind} | {median} | {'' if kind == 'bare loop' else f'{ratio} '}|")
    print(f"{len(paths):,} JPEGs of 500 × 375, {mean / 1e3:.0f} kB each; median of {options.rounds} rounds, and the "
          "ratio's range:\n\n| | images/s | beside the bare loop |\n|---|---|---|", *table, sep="\n")


def write_records(folder, name, shards, records, contents):
    """Writes records as another program would: `contents` over and over, labels 0 to 9.

    Args:
        folder: Where to; made if missing.
        name: The split, with which the files' names begin.
        shards: Number of files.
        records: Number of records in all of them.
        contents: Encoded images, as bytes.
    """
    folder.mkdir(exist_ok=True)
    examples = [tf.train.Example(features=tf.train.Features(feature={
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[index % 10]))})).SerializeToString()
        for index, data in enumerate(contents)]
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(folder / f"{name}-{shard:05d}-of-{shards:05d}")) as writer:
            for index in range(shard, records, shards):
                writer.write(examples[index % len(examples)])


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
started = runtime.start(config, Cluster())
began = time.perf_counter()
data = load(config)
plan = make_plan(config, data.train.size, 1)
feed = open_feed(Job(config, plan, started, data), first_step=int({share} * data.train.size / plan.batch_size))
next(feed.iterators[0])
print(time.perf_counter() - began)
os._exit(sys.stdout.flush() or 0)
"""


def resume(options, root):
    """Prints the seconds from the index to the first batch: the lines of RESULTS.md.

    Args:
        options: The flags; `records` and `rounds` count.
        root: An empty folder.
    """
    contents = [encode(image) for image in figures(100)[0]]
    write_records(root / "r", "train", _SHARDS, options.records, contents)
    write_records(root / "r", "test", 1, 100, contents)
    external_shards.make_index(root / "r", root / "r")
    measured = []
    for share in (0, 0.9):
        seconds = [float(subprocess.run([sys.executable, "-c", FIRST_STEP.format(
            root=str(HERE.parent), data=str(root / "r"), share=share)], check=True, text=True,
            capture_output=True).stdout) for _ in range(options.rounds)]
        measured.append(f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} – {max(seconds):.2f}) at "
                        + (f"{100 * share:.0f} % of it" if share else "the beginning of an epoch"))
    print(wrapped(f"{options.records:,} records in {_SHARDS} shards, from the index to the first batch, each in a "
                  f"process of its own, n = {options.rounds}: {', '.join(measured)}."))


def memory(options, root):
    """Prints the most resident memory of a training run over records of about a megabyte: the lines of RESULTS.md.

    Args:
        options: The flags; `gigabytes` counts.
        root: An empty folder.
    """
    contents = [encode(photo(index, 1600, 1200, 14), "JPEG", quality=93) for index in range(20)]
    count = int(options.gigabytes * 1e9 / np.mean([len(data) for data in contents]))
    write_records(root / "r", "train", 128, count, contents)
    write_records(root / "r", "test", 1, 100, contents)
    size = sum(path.stat().st_size for path in (root / "r").iterdir())
    external_shards.make_index(root / "r", root / "r")
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "trainer.main", "--dataset=records", f"--data_dir={root / 'r'}", "--epochs=1",
                    f"--model_dir={root / 'run'}", "--image_size=64", "--num_gpus=0", "--export=none"], check=True,
                   cwd=HERE.parent)
    seconds = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(wrapped(
        f"The memory of a training run over {size / 1e9:.1f} GB in {count:,} records of {size / count / 1e6:.2f} MB "
        f"(1600 × 1200 JPEGs to 64 × 64, batch {_BATCH}, one epoch in {seconds:.0f} s): **{most / 2**20:.2f} GiB** "
        "resident at most, n = 1."))


def main():
    """Runs the part that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("speed", "resume", "memory"), help="what to measure")
    parser.add_argument("--images", type=int, default=2000,
                        help="of speed: number of JPEG files; 20 are the test split")
    parser.add_argument("--records", type=int, default=1_000_000, help="of resume: number of training records")
    parser.add_argument("--gigabytes", type=float, default=20, help="of memory: size of all records")
    parser.add_argument("--rounds", type=int, default=5, help="of speed and resume: number of rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        {"speed": speed, "resume": resume, "memory": memory}[options.part](options, Path(scratch))


if __name__ == "__main__":
    main()
