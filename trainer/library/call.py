"""`train(Config(…))`: a run in a script, a thread or a notebook, which finds its process as it left it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, cast

from trainer.distributed.cluster import Cluster, read_cluster
from trainer.errors import UsageError, has_folder, translate
from trainer.library.settings import checked
from trainer.main import run_in
from trainer.process.guest.left_as_found import left_as_found, only_run
from trainer.process.guest.stop import GuestStop
from trainer.process.guest.watchdog import GuestWatchdog
from trainer.storage.model_dir import ModelDir

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.library.result import Result


def train(config: Config, *, stop: threading.Event | None = None) -> Result:
    """Trains as configured, or goes on with the run that the folder holds: what the command does, to the last bit.

    A run by this function and one by the command are the same run: each goes on with what the other has saved.

    Ctrl-C (in a notebook: interrupt) saves, and raises `Stopped`; a second one raises KeyboardInterrupt at once. That
    is so in the main thread; in another thread nothing listens to signals, and `stop` asks for the same. Nothing ends
    the process, but for native code that holds the interpreter's lock for over `hang_timeout`.

    After the call signals' handlers, variables of the environment, the path of imports, random numbers of Python's and
    NumPy's, and Keras's settings are as they were. TensorFlow's devices stay as the first run chose them, and its
    global seed stays set.

    Args:
        config: The settings: a field for each flag of the command, `help(Config)` lists them.
        stop: Once it is set, by another thread, the run saves and raises `Stopped`.

    Returns:
        The `Result`, which result.json holds, too.

    Raises:
        UsageError: if settings are wrong, all of them named; if the process has other devices than they ask for, or
            another run.
        Stopped: if the run was asked to stop; its state is saved, and the same call goes on with it.
        LockstepError: for each other end than well, another subclass: `DataError`, `DeviceError`, `BusyError`,
            `StorageError`, `DivergedError`.
        KeyboardInterrupt: after a second Ctrl-C; the same call goes on from the last checkpoint.
    """
    began = time.monotonic()
    with only_run() as is_only, _known_errors():
        if not is_only:
            raise UsageError("this process has a run under way already, in another thread",
                             "wait for it, or start this one in a process of its own: lockstep train")
        if not has_folder():
            raise UsageError("the folder that this process works in is gone", "os.chdir to one that is there")
        config = checked(config)
        cluster = _alone(config)
        with (left_as_found(), GuestStop(stop) as request, GuestWatchdog(config.hang_timeout) as watchdog):
            return cast("Result", run_in(ModelDir(config.model_dir), config, cluster, request, watchdog, began))


def _alone(config: Config) -> Cluster:
    """The cluster of a process that works alone.

    Raises:
        UsageError: if the environment names others.
    """
    cluster = read_cluster(config.strategy)
    if cluster.distributed or cluster.workers > 1:
        raise UsageError(f"train has no other workers; the environment (TF_CONFIG or Slurm's variables) names "
                         f"{cluster.workers}", "start each worker with the command (lockstep train), or "
                         "launch.local; or take the variables out of the environment")
    return cluster


@contextlib.contextmanager
def _known_errors():
    """Raises what the world may cause as the `LockstepError` that it means, with what led to it as a note."""
    try:
        yield
    except Exception as error:
        failure = translate(error)
        if failure is None:
            raise
        if failure.details and hasattr(failure, "add_note"):  # from Python 3.11 on
            failure.add_note(failure.details)  # pyright: ignore[reportAttributeAccessIssue]
        if failure is error:
            raise
        raise failure from error
