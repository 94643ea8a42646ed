"""`python -m trainer.main --flags`: trains."""

import sys

from trainer import flags
from trainer.config import Config
from trainer.distributed.cluster import read_cluster
from trainer.distributed.initialize import assemble
from trainer.errors import catching, run_as_process, run_to_exit_code
from trainer.process.signals import StopWish
from trainer.process.watchdog import Deadline
from trainer.reporting.console import Console
from trainer.reporting.summary import summary
from trainer.storage.model_dir import ModelDir


def main(argv=None, for_good=None):
    """Trains as the command line says.

    Args:
        argv: The words after the program's name; None for the process's own.
        for_good: Whether the process ends afterwards; by default it does if the words are its own.

    Returns:
        The exit code; see errors.py.
    """
    for_good = argv is None if for_good is None else for_good
    return run_to_exit_code(_train, sys.argv[1:] if argv is None else argv, for_good)


def _train(argv, for_good):
    config = flags.parse(Config, argv)
    cluster, model_dir = read_cluster(config.strategy), ModelDir(config.model_dir)
    with StopWish(for_good) as wish, Deadline(config.hang_timeout) as deadline:
        wish.begin("starting")
        try:
            _run(config, cluster, model_dir, wish, deadline)
        finally:
            model_dir.unlock()


def _run(config, cluster, model_dir, wish, deadline):
    changed, is_chief = [], cluster.worker == 0
    with catching() as caught:
        if is_chief:
            changed = model_dir.claim(config)
    # TensorFlow is imported in here; what a user got wrong has been answered by now.
    runtime = assemble(config, cluster, model_dir, caught.error, deadline)
    wish.listen()
    from trainer.loop import train_and_evaluate

    console = Console(model_dir.log if is_chief else None, quiet=not is_chief)
    for warning in runtime.warnings:
        console.warn(warning)
    for name, mine, theirs, _ in changed:
        console.say(f"--{name} was {theirs!r}, now {mine!r}")
    result = train_and_evaluate(config, runtime, model_dir, console, wish, deadline)
    if result:
        console.say(summary(model_dir, result))
    console.close()


if __name__ == "__main__":
    run_as_process(main)
