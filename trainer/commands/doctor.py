"""`doctor`: what this machine can run, or all that is wrong with a data set."""

import dataclasses
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from trainer.config import Config, needs_data_dir
from trainer.distributed.cluster import Cluster
from trainer.errors import DataError, DeviceError
from trainer.options import Checked, option
from trainer.process.exit import say

if TYPE_CHECKING:
    from trainer.data.dataset import Dataset
    from trainer.data.images.encoded_split import EncodedSplit
    from trainer.distributed.runtime import Runtime

_SHOWN_LINES = 20
_DARK = 64  # of 255: images whose values end below look black
_NAMED = 5
_READ_BATCH, _READ_SECONDS = 64, 1.5  # of the reading that is timed


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer doctor: devices, libraries and an all-reduce; with --data: every image of a data set."""

    data: bool = option(False, "read all of the data set and list everything that is wrong with it")
    dataset: str = Config.__dataclass_fields__["dataset"]
    data_dir: str = Config.__dataclass_fields__["data_dir"]
    validation_fraction: float | None = Config.__dataclass_fields__["validation_fraction"]
    num_gpus: int = Config.__dataclass_fields__["num_gpus"]
    virtual_devices: int = Config.__dataclass_fields__["virtual_devices"]
    xla: str = Config.__dataclass_fields__["xla"]
    self_test: str = option("", "run only this test, in this process", choices=("", "all_reduce", "compile"))

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        return super().problems() + needs_data_dir(self.dataset, self.data_dir)


def run(options: Options) -> None:
    """Prints the devices and the results of their tests, or the problems of a data set.

    Raises:
        DataError: with everything that is wrong with the data.
        DeviceError: if the devices can't work, or can't work together.
    """
    if options.data:
        _check_data(options)
    elif options.self_test:
        from trainer.distributed.devices import self_tests

        self_tests.TESTS[options.self_test](_started(options))
    else:
        _check_machine(options)


def _started(options: Options) -> "Runtime":
    from trainer.distributed import runtime

    config = Config(num_gpus=options.num_gpus, virtual_devices=options.virtual_devices, xla=options.xla)
    return runtime.start(config, Cluster())


def _check_machine(options: Options) -> None:
    runtime = _started(options)
    import keras
    import numpy as np

    from trainer.distributed.devices import self_tests
    from trainer.process.tf_import import tf

    built = tf.sysconfig.get_build_info()
    say(f"python {sys.version.split()[0]}, tensorflow {tf.__version__}, keras {keras.__version__}, "
        f"numpy {np.__version__}; built for CUDA {built.get('cuda_version', '–')}, cuDNN "
        f"{built.get('cudnn_version', '–')}")
    for line in self_tests.describe(runtime):
        say(line)
    for warning in runtime.warnings:
        say(f"warning: {warning}")
    say(f"training would use: {runtime.sentence()}")
    for line in runtime.advice():
        say(line)
    for name in self_tests.TESTS:
        say(_test(name, runtime, options))


def _test(name: str, runtime: "Runtime", options: Options) -> str:
    """What a self-test prints, in a process of its own: native code that hangs or aborts can't be ended from within.

    Raises:
        DeviceError: if the test fails, or doesn't end.
    """
    flags = [f"--self_test={name}", f"--num_gpus={options.num_gpus}", f"--virtual_devices={options.virtual_devices}",
             f"--xla={options.xla}"]
    what = {"all_reduce": f"the all-reduce between {runtime.replicas} replicas",
            "compile": f"a convolution on {runtime.devices[0]}"}[name]
    fix = {"all_reduce": "try fewer devices with --num_gpus; NCCL_DEBUG=INFO says what it waits for",
           "compile": "python -m trainer doctor names the libraries in use; see README, On a GPU box"}[name]
    limit = runtime.kind.self_test_seconds
    try:
        child = subprocess.run([sys.executable, "-m", "trainer", "doctor", *flags], text=True, capture_output=True,
                               timeout=limit, errors="replace")
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{what} did not end in {limit:.0f} s", fix) from None
    if child.returncode:
        messages = child.stderr.strip().splitlines()[-_SHOWN_LINES:] or ["no message"]
        raise DeviceError("\n  ".join([f"{what} failed (exit {child.returncode}):", *messages]), fix)
    return child.stdout.strip()


def _unused_range(data: "Dataset") -> str | None:
    """What to tell where images of 16 bits use only the dark part of their range, or None."""
    from trainer.data.images import pillow_reader
    from trainer.data.images.encoded_split import EncodedSplit

    deepest = max((pillow_reader.deepest(split.load(example)) for split in data.splits.values()
                   if isinstance(split, EncodedSplit)
                   for example in (split.headers.traits & pillow_reader.DEEP).nonzero()[0].tolist()), default=None)
    if deepest is None or deepest >= 2**15:
        return None
    return (f"the images of 16 bits have values up to {deepest:,} of 65,535, so the model sees them as nearly black: "
            f"multiply them by {65535 // max(1, deepest)} before you train")


class _Seen:
    """What the values of a data set's images are like."""

    def __init__(self) -> None:
        self._images = 0
        self._dark: list[int] = []  # the greatest values of images that look black
        self._plain: list[str] = []  # images of one value

    def add(self, name: str, least: int, greatest: int) -> None:
        """Adds an image with its least and greatest value, 0 to 255."""
        self._images += 1
        if greatest < _DARK:
            self._dark.append(greatest)
        if least == greatest:
            self._plain.append(name)

    def darkness(self) -> str | None:
        """What to tell if half of the images have no bright pixel, as class numbers or 12 bits in 16; or None."""
        if not self._dark or 2 * len(self._dark) < self._images:
            return None
        most = max(self._dark)
        return (f"{len(self._dark):,} of {self._images:,} images have values up to {most} of 255, so the model sees "
                f"them as nearly black: multiply them by {255 // max(1, most)} before you train")

    def emptiness(self) -> str | None:
        """What to tell of images that show one value alone, or None."""
        if not self._plain:
            return None
        more = f" and {len(self._plain) - _NAMED:,} more" if len(self._plain) > _NAMED else ""
        return (f"{len(self._plain):,} of {self._images:,} images show nothing but one colour: "
                f"{', '.join(self._plain[:_NAMED])}{more}; look at them")


def _check_data(options: Options) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from trainer.process import tf_import  # noqa: F401  first: it keeps back what TensorFlow logs while it is imported

    # isort: split
    from trainer.data.dataset import load
    from trainer.data.images.encoded_split import EncodedSplit
    from trainer.process.host import cores
    from trainer.process.progress_bar import bar

    data = load(Config(dataset=options.dataset, data_dir=options.data_dir, max_bad_records=2**31,
                       validation_fraction=options.validation_fraction))
    say(data.sentence())
    for warning in data.warnings:
        say(f"warning: {warning}")
    seen = _Seen()
    for split in data.splits.values():
        if not isinstance(split, EncodedSplit):
            continue
        with ThreadPoolExecutor(cores()) as threads, bar("images", split.size) as advance:
            inspected = threads.map(split.inspect, range(split.size), chunksize=64)
            for example, (problem, values) in enumerate(inspected):
                advance(1)
                if problem:
                    data.bad.note(split, example, problem)
                if values:
                    seen.add(split.name_of(example), *values)
    if data.bad.count:
        raise DataError("\n  ".join([f"{data.bad.count:,} images or files can't be used:", *data.bad.names()]),
                        f"repair or remove them, or train without them: --max_bad_records={data.bad.count}")
    for warning in filter(None, (_unused_range(data) or seen.darkness(), seen.emptiness())):
        say(f"warning: {warning}")
    say(f"{sum(split.size for split in data.splits.values()):,} images read: all of them can be used")
    if isinstance(data.train, EncodedSplit):
        _say_reading_speed(data.train)


def _say_reading_speed(split: "EncodedSplit") -> None:
    """Prints how fast training would read images."""
    from trainer.data import order
    from trainer.data.pipeline import with_threads
    from trainer.process.host import cores
    from trainer.process.tf_import import tf

    batch_size = min(_READ_BATCH, split.size)
    steps = min(100, split.size // batch_size)
    positions = order.batches(split.order(0, batch_size), batch_size, 1, 0, 0, steps)
    read = split.read(tf.data.Dataset.from_tensor_slices(positions).repeat(), cores())
    batches = iter(with_threads(read, cores()).prefetch(2))
    next(batches)  # opens the pipeline
    began, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < _READ_SECONDS:
        next(batches)
        count += 1
    rate = count * batch_size / seconds
    say(f"training reads about {rate:,.0f} images/s with {cores()} cores, {rate / cores():,.0f} a core: devices that "
        "train more wait for images (python -m trainer bench measures both)")
