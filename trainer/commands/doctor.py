"""`doctor`: what this machine can run, or all that is wrong with a data set."""

import dataclasses
import subprocess
import sys
from typing import TYPE_CHECKING

from trainer.config import Config
from trainer.distributed.cluster import Cluster
from trainer.errors import DeviceError
from trainer.options import Checked, option
from trainer.process.exit import say
from trainer.process.libraries.children import command_of
from trainer.rules.combinations import needs_data_dir

if TYPE_CHECKING:
    from trainer.distributed.runtime import Runtime

_SHOWN_LINES = 20


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer doctor: devices, libraries and an all-reduce; with --data: every image of a data set."""

    data: bool = option(False, "read all of the data set and list everything that is wrong with it, and what is odd: "
                        "copies, leaks between splits, images that show little")
    dataset: str = Config.__dataclass_fields__["dataset"]
    data_dir: str = Config.__dataclass_fields__["data_dir"]
    validation_fraction: float | None = Config.__dataclass_fields__["validation_fraction"]
    model_dir: str = option("", "with --data: folder of a run, whose data and predictions are used: labels that are "
                            "likely wrong, too")
    images: int = option(0, "with --data: how many images to read, evenly spread over the data; 0: all", least=0)
    out: str = option("", "with --data: file for a page that shows what was found")
    json: bool = option(False, "with --data: print a JSON object with all that was found")
    num_gpus: int = Config.__dataclass_fields__["num_gpus"]
    virtual_devices: int = Config.__dataclass_fields__["virtual_devices"]
    xla: str = Config.__dataclass_fields__["xla"]
    self_test: str = option("", "run only this test, in this process", choices=("", "all_reduce", "compile"))

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        alone = [name for name in ("model_dir", "images", "out", "json") if getattr(self, name) and not self.data]
        return [*super().problems(), *([] if self.model_dir else needs_data_dir(self.dataset, self.data_dir)),
                *(f"--{name} needs --data" for name in alone)]


def run(options: Options) -> None:
    """Prints the devices and the results of their tests, or the problems of a data set.

    Raises:
        DataError: with everything that is wrong with the data; or if it isn't the data of the run.
        DeviceError: if the devices can't work, or can't work together.
        UsageError: if the data can't be that of the run.
    """
    if options.data:
        from trainer.commands.data_check.check import check_data

        check_data(options)
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
        child = subprocess.run([*command_of("trainer"), "doctor", *flags], text=True, capture_output=True,
                               timeout=limit, errors="replace")
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{what} did not end in {limit:.0f} s", fix) from None
    if child.returncode:
        messages = child.stderr.strip().splitlines()[-_SHOWN_LINES:] or ["no message"]
        raise DeviceError("\n  ".join([f"{what} failed (exit {child.returncode}):", *messages]), fix)
    return child.stdout.strip()
