"""`python -m trainer COMMAND`, also installed as `lockstep COMMAND`."""

import importlib
import sys
from collections.abc import Sequence

from trainer import flags
from trainer.errors import UsageError
from trainer.options import names_in
from trainer.process.exit import run_as_process, run_to_exit_code, say
from trainer.process.libraries import versions

COMMANDS = ("train", *names_in("commands"))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The command and its arguments; None for the process's own.

    Returns:
        The exit code: 0, or that of an exception type in errors.py.
    """
    exits_process, argv = argv is None, sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        return run_to_exit_code(_help) or (0 if argv else UsageError.code)
    if argv[0] == "--version":
        return run_to_exit_code(_version)
    if argv[0] == "train":
        from trainer import main as trainer_main

        return trainer_main.main(argv[1:], exits_process)
    return run_to_exit_code(_run, argv[0], argv[1:])


def _version() -> None:
    """Prints the versions of this program, Python and the libraries below it."""
    say(versions.sentence())


def _help() -> None:
    """Prints all commands."""
    say("lockstep COMMAND --flags      (COMMAND --help lists its flags; lockstep --version says what is installed)\n")
    say("\n".join(f"  {name:<10} {_title(name)}" for name in COMMANDS))


def _title(name: str) -> str:
    """What a command does: the first line of its module's docstring, after the command's name."""
    if name == "train":
        return "train, or go on training (the same as python -m trainer.main)"
    title = (importlib.import_module(f"trainer.commands.{name}").__doc__ or "").partition("\n")[0]
    return title.partition(": ")[2].rstrip(".")


def program() -> None:
    """The entry point of the `lockstep` command."""
    run_as_process(main)


def _run(name: str, argv: Sequence[str]) -> None:
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}; there are: {', '.join(COMMANDS)}",
                         "lockstep --help says what each does")
    command = importlib.import_module(f"trainer.commands.{name}")
    command.run(flags.parse(command.Options, argv, positional=getattr(command, "POSITIONAL", None)))


if __name__ == "__main__":
    program()
