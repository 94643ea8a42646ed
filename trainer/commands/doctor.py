"""`doctor`: what this machine can run, or all that is wrong with a data set."""

import dataclasses
import subprocess
import sys

from trainer.cluster import Cluster
from trainer.config import Checked, Config, option
from trainer.errors import DataError, DeviceError

_DEADLINE = 120.0  # seconds of the self-test


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer doctor: devices, libraries and an all-reduce; with --data: every picture of a data set."""

    data: bool = option(False, "read all of the data set and list everything that is wrong with it")
    dataset: str = Config.__dataclass_fields__["dataset"]
    data_dir: str = Config.__dataclass_fields__["data_dir"]
    validation_fraction: float | None = Config.__dataclass_fields__["validation_fraction"]
    num_gpus: int = Config.__dataclass_fields__["num_gpus"]
    virtual_devices: int = Config.__dataclass_fields__["virtual_devices"]
    self_test: bool = option(False, "only the all-reduce, in this process")


def run(options):
    """Prints what there is.

    Args:
        options: The `Options`.

    Raises:
        DataError: with everything that is wrong with the data.
        DeviceError: if the devices can't work together.
    """
    if options.data:
        _look_at_data(options)
    elif options.self_test:
        _self_test(options)
    else:
        _look_at_machine(options)


def _look_at_machine(options):
    from trainer import runtime

    tf, config = runtime.tf, Config(num_gpus=options.num_gpus, virtual_devices=options.virtual_devices)
    devices = runtime.start(config, Cluster())
    import keras
    import numpy as np

    built = tf.sysconfig.get_build_info()
    print(f"python {sys.version.split()[0]}, tensorflow {tf.__version__}, keras {keras.__version__}, "
          f"numpy {np.__version__}; built for CUDA {built.get('cuda_version', '–')}, cuDNN "
          f"{built.get('cudnn_version', '–')}")
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        print(f"{gpu.name}: {details.get('device_name')}, compute capability {details.get('compute_capability')}")
    print(f"training would use: {devices.sentence()}")
    words = [f"--num_gpus={options.num_gpus}", f"--virtual_devices={options.virtual_devices}"]
    try:
        # A collective that hangs can't be ended from within.
        done = subprocess.run([sys.executable, "-m", "trainer", "doctor", "--self_test", *words], text=True,
                              capture_output=True, timeout=_DEADLINE)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"the all-reduce between {devices.replicas} replicas did not end in {_DEADLINE:.0f} s",
                          "try fewer devices with --num_gpus; NCCL_DEBUG=INFO says what it waits for") from None
    if done.returncode:
        raise DeviceError(f"the all-reduce between {devices.replicas} replicas failed: "
                          f"{(done.stderr.strip().splitlines() or ['no message'])[0]}",
                          "try fewer devices with --num_gpus; NCCL_DEBUG=INFO says more")
    print(done.stdout.strip())


def _self_test(options):
    """Sums known numbers over all replicas, and times it."""
    import time

    from trainer import runtime

    tf = runtime.tf
    devices = runtime.start(Config(num_gpus=options.num_gpus, virtual_devices=options.virtual_devices), Cluster())

    @tf.function
    def reduce():
        def replica():
            context = tf.distribute.get_replica_context()
            mine = tf.fill([2**20], tf.cast(context.replica_id_in_sync_group + 1, tf.float32))
            return context.all_reduce("SUM", mine) if devices.replicas > 1 else mine

        return devices.strategy.experimental_local_results(devices.strategy.run(replica))

    reduce()
    began = time.perf_counter()
    sums = [float(tf.reduce_max(part)) for part in reduce()]
    seconds = time.perf_counter() - began
    wanted = devices.replicas * (devices.replicas + 1) / 2
    if any(found != wanted for found in sums):
        raise DeviceError(f"an all-reduce of 1 to {devices.replicas} gave {sums}, not {wanted}",
                          "don't train on these devices together")
    print(f"all-reduce of 4 MiB between {devices.replicas} replica{'s' if devices.replicas > 1 else ''}: right, "
          f"{1e3 * seconds:.1f} ms")


def _look_at_data(options):
    from concurrent.futures import ThreadPoolExecutor

    from trainer import runtime  # noqa: F401  keeps back what TensorFlow says while it is imported
    from trainer.data.encoded import EncodedSplit
    from trainer.data.pictures import cores
    from trainer.data.source import load
    from trainer.reporting.bar import bar

    data = load(Config(dataset=options.dataset, data_dir=options.data_dir, max_bad_records=2**31,
                       validation_fraction=options.validation_fraction))
    print(data.sentence())
    for split in (data.train, data.test):
        if not isinstance(split, EncodedSplit):
            continue
        with ThreadPoolExecutor(cores()) as threads, bar("pictures", split.size) as advance:
            for example, problem in enumerate(threads.map(split.problem_of, range(split.size), chunksize=64)):
                advance(1)
                if problem:
                    data.bad.note(split, example, problem)
    if data.bad.count:
        raise DataError("\n  ".join([f"{data.bad.count:,} pictures or files can't be used:", *data.bad.names()]),
                        f"mend or remove them, or train without them: --max_bad_records={data.bad.count}")
    print(f"{data.train.size + data.test.size:,} pictures read, nothing is wrong with them")
