"""`python -m trainer.main --flags`: trains."""

import sys

from trainer import flags
from trainer.config import Config
from trainer.distributed.cluster import read_cluster
from trainer.distributed.initialize import initialize
from trainer.errors import catching
from trainer.process.exit import run_as_process, run_to_exit_code
from trainer.process.signals import StopRequest
from trainer.process.watchdog import Watchdog
from trainer.reporting.console import Console
from trainer.reporting.summary import summary
from trainer.storage.model_dir import ModelDir


def main(argv=None, exits_process=None):
    """Trains as the command line says.

    Args:
        argv: The words after the program's name; None for the process's own.
        exits_process: Whether the process ends afterwards; by default it does if the words are its own.

    Returns:
        The exit code; see errors.py.
    """
    exits_process = argv is None if exits_process is None else exits_process
    return run_to_exit_code(_train, sys.argv[1:] if argv is None else argv, exits_process)


def _train(argv, exits_process):
    config = flags.parse(Config, argv)
    cluster, model_dir = read_cluster(config.strategy), ModelDir(config.model_dir)
    with StopRequest(exits_process) as stop, Watchdog(config.hang_timeout) as watchdog:
        try:
            _run(config, cluster, model_dir, stop, watchdog)
        finally:
            model_dir.unlock()


def _run(config, cluster, model_dir, stop, watchdog):
    changed, is_chief = [], cluster.worker == 0
    with stop.nothing_to_save("starting"):
        with catching() as caught:
            if is_chief:
                changed = model_dir.claim(config)
        # TensorFlow is imported in here; what a user got wrong has been answered by now.
        runtime = initialize(config, cluster, model_dir, failure=caught.error, watchdog=watchdog)
        stop.listen()
        from trainer.loop import train_and_evaluate

    console = Console(model_dir.log if is_chief else None, quiet=not is_chief)
    for warning in runtime.warnings:
        console.warn(warning)
    for name, before, now in changed:
        console.say(f"--{name} was {before!r}, now {now!r}")
    result = train_and_evaluate(config, runtime, model_dir=model_dir, console=console, stop=stop, watchdog=watchdog)
    if result:
        console.say(summary(model_dir, result))
    console.close()


if __name__ == "__main__":
    run_as_process(main)
