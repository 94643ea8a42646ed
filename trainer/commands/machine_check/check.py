"""All that `doctor` looks at on a machine: libraries, devices, what surrounds a run, and tests of the devices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.commands.machine_check.surroundings import disk, memory, open_files, shared_memory
from trainer.config import Config
from trainer.distributed.cluster import Cluster
from trainer.errors import DeviceError, LockstepError
from trainer.process.exit import say
from trainer.process.libraries.children import command_of

if TYPE_CHECKING:
    from trainer.commands.doctor import Options
    from trainer.distributed.runtime import Runtime

_SHOWN_LINES = 20


def check_machine(options: Options) -> None:
    """Prints what was found, a line each, or the form of a bug report with it.

    Raises:
        DeviceError: if the devices can't work, or can't work together.
        StorageError: if no run could write its files.
    """
    found: list[str] = []
    try:
        for line in _look(options):
            found.append(line)
            if not options.bug_report:
                say(line)
    except LockstepError as error:
        found.append(f"error: {error.cause}; fix: {error.fix}")
        raise
    finally:
        if options.bug_report:
            from trainer.commands.machine_check.bug_report import form
            from trainer.storage.model_dir import ModelDir

            say(form(found, ModelDir(options.model_dir) if options.model_dir else None))


def started(options: Options) -> Runtime:
    """The devices that a run would use.

    Raises:
        DeviceError: if they can't be used.
    """
    from trainer.distributed import runtime

    config = Config(num_gpus=options.num_gpus, virtual_devices=options.virtual_devices, xla=options.xla)
    return runtime.start(config, Cluster())


def _look(options: Options) -> Iterator[str]:
    """What is found, line by line."""
    room = disk(options.model_dir or Path("runs"))
    for verdict in (room, memory(), open_files()):
        yield from verdict.lines()
    runtime = started(options)
    import keras
    import numpy as np

    from trainer.distributed.devices import self_tests
    from trainer.process.tf_import import tf

    built = tf.sysconfig.get_build_info()
    yield (f"python {sys.version.split()[0]}, tensorflow {tf.__version__}, keras {keras.__version__}, "
           f"numpy {np.__version__}; built for CUDA {built.get('cuda_version', '–')}, cuDNN "
           f"{built.get('cudnn_version', '–')}")
    yield from self_tests.describe(runtime)
    if runtime.kind.cuda and len(runtime.physical) > 1:
        yield from shared_memory().lines()
    yield from (f"warning: {warning}" for warning in runtime.warnings)
    yield f"training would use: {runtime.sentence()}"
    yield from runtime.advice()
    for name in self_tests.TESTS:
        yield _test(name, runtime, options)
    room.check()
    yield "a run would start here"


def _test(name: str, runtime: Runtime, options: Options) -> str:
    """What a self-test prints, in a process of its own: native code that hangs or aborts can't be ended from within.

    Raises:
        DeviceError: if the test fails, or doesn't end.
    """
    flags = [f"--self_test={name}", f"--num_gpus={options.num_gpus}", f"--virtual_devices={options.virtual_devices}",
             f"--xla={options.xla}"]
    what = {"all_reduce": f"the all-reduce between {runtime.replicas} replicas",
            "compile": f"a convolution on {runtime.devices[0]}"}[name]
    fix = {"all_reduce": "try fewer devices with --num_gpus; NCCL_DEBUG=INFO says what it waits for",
           "compile": "python -m trainer doctor names the libraries in use; see docs/gpus.md"}[name]
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
