"""`python -m trainer.main --flags`: trains."""

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from trainer import flags
from trainer.config import Config
from trainer.distributed.cluster import Cluster, read_cluster
from trainer.distributed.initialize import initialize
from trainer.errors import LockstepError, UsageError, catching
from trainer.export.formats.libraries import require_libraries
from trainer.options import shown_value
from trainer.process.exit import run_as_process, run_to_exit_code, tell
from trainer.process.imports import collector_paused
from trainer.process.libraries import versions
from trainer.process.signals import StopRequest
from trainer.process.watchdog import Watchdog
from trainer.reporting.console import Console
from trainer.reporting.notifications import channels
from trainer.reporting.notifications.notifier import Notifier
from trainer.reporting.timeline.record import Timeline
from trainer.reporting.trackers.trackers import require_installed
from trainer.storage.model_dir import ModelDir, ScratchDir


def main(argv: Sequence[str] | None = None, exits_process: bool | None = None) -> int:
    """Trains as the command line says.

    Args:
        argv: The arguments after the program's name; None for the process's own.
        exits_process: Whether the process ends afterwards; None: it does if `argv` is None.

    Returns:
        The exit code: 0, or that of an exception type in errors.py.
    """
    exits_process = argv is None if exits_process is None else exits_process
    return run_to_exit_code(_train, sys.argv[1:] if argv is None else argv, exits_process)


def _train(argv: Sequence[str], exits_process: bool) -> None:
    began = time.monotonic()
    config = flags.parse(Config, argv)
    cluster = read_cluster(config.strategy)
    model_dir = (ScratchDir if config.dry_run else ModelDir)(config.model_dir)
    with StopRequest(exits_process) as stop, Watchdog(config.hang_timeout, stop) as watchdog:
        run_in(model_dir, config, cluster, stop, watchdog, began)


def run_in(model_dir: ModelDir, config: Config, cluster: Cluster, stop: StopRequest, watchdog: Watchdog,
           began: float) -> dict[str, Any] | None:
    """Trains in a folder, which is given back at the end.

    Args:
        model_dir: The folder, not claimed yet.
        config: The run's settings, without problems.
        cluster: The workers of the job.
        stop: Entered.
        watchdog: Entered.
        began: When this start began, by the monotonic clock.

    Returns:
        What result.json holds; None on workers that aren't the chief, and of a dry run.

    Raises:
        LockstepError: a subclass for each way to end other than well.
    """
    try:
        return _claim_and_run(model_dir, config, cluster, stop, watchdog, began)
    finally:
        model_dir.unlock()


def _claim_and_run(model_dir: ModelDir, config: Config, cluster: Cluster, stop: StopRequest, watchdog: Watchdog,
                   began: float) -> dict[str, Any] | None:
    changed: list[tuple[str, Any, Any]] = []
    with stop.nothing_to_save("starting"), catching() as caught:
        config = model_dir.inherit(config)
        if cluster.worker == 0:  # which exports, tracks and tells
            require_libraries(config.formats)
            require_installed(config.trackers)
            if config.notify:
                channels.require(config.notify)
            changed = model_dir.claim(config)
    writes = cluster.worker == 0 and not caught.error  # else the folder isn't ours
    # Who starts a run with a wrong flag is there to read it.
    tells = cluster.worker == 0 and not config.dry_run and not isinstance(caught.error, UsageError)
    with Notifier(config, tells) as notifier, Timeline(model_dir.timeline if writes else None, began) as timeline:
        result = _start(config, cluster, model_dir, stop, watchdog, timeline, changed, caught.error)
        notifier.note_result(result)
        return result


def _start(config: Config, cluster: Cluster, model_dir: ModelDir, stop: StopRequest, watchdog: Watchdog,
           timeline: Timeline, changed: list[tuple[str, Any, Any]],
           failure: LockstepError | None) -> dict[str, Any] | None:
    """Starts TensorFlow, and trains in a folder that is claimed; all workers end if one has a failure."""
    is_chief = cluster.worker == 0
    for sentence in versions.warnings() if is_chief and not failure else ():
        tell(f"lockstep: warning: {sentence}")
    with stop.nothing_to_save("starting"):
        # This imports TensorFlow; a user's mistakes have been answered by now. Of several workers, TensorFlow puts a
        # handler of its own over SIGTERM, and waits for the others with the interpreter's lock in its hand.
        with stop.deferred() if cluster.workers > 1 else contextlib.nullcontext():
            runtime = initialize(config, cluster, model_dir, failure=failure, watchdog=watchdog)
        with collector_paused():
            from trainer.dry_run.dry_run import dry_run
            from trainer.loop import train_and_evaluate
    start = dry_run if config.dry_run else train_and_evaluate

    console = Console(model_dir.log if is_chief else None, quiet=not is_chief,
                      owns_stdout=stop.owns_process)
    for warning in runtime.warnings:
        console.warn(warning)
    for name, before, now in changed:
        console.say(f"--{name} was {shown_value(before)}, now {shown_value(now)}")
    with contextlib.closing(console):
        return start(config, runtime, model_dir=model_dir, console=console, stop=stop, watchdog=watchdog,
                     timeline=timeline)


if __name__ == "__main__":
    run_as_process(main)
