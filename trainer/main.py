"""`python -m trainer.main --flags`: trains."""

import sys

from trainer import flags
from trainer.cluster import read_cluster
from trainer.config import Config
from trainer.errors import run_as_process, run_to_exit_code
from trainer.model_dir import ModelDir
from trainer.reporting.console import Console
from trainer.reporting.summary import summary
from trainer.signals import StopWish


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
    with StopWish(for_good) as wish:
        wish.begin("starting")
        try:
            _run(config, cluster, model_dir, wish)
        finally:
            model_dir.unlock()


def _run(config, cluster, model_dir, wish):
    is_chief = cluster.worker == 0
    changed = model_dir.claim(config) if is_chief else []
    console = Console(model_dir.log if is_chief else None, quiet=not is_chief)
    for name, mine, theirs, _ in changed:
        console.say(f"--{name} was {theirs!r}, now {mine!r}")
    # TensorFlow is imported from here on; what a user got wrong has been answered by now.
    from trainer import runtime
    from trainer.loop import train_and_evaluate

    devices = runtime.start(config, cluster)
    wish.listen()
    result = train_and_evaluate(config, devices, model_dir, console, wish)
    if result:
        console.say(summary(model_dir, result))
    console.close()


if __name__ == "__main__":
    run_as_process(main)
