"""A launcher's command line: its own flags, two dashes, the trainer's flags."""

from trainer import flags
from trainer.config import Config
from trainer.errors import UsageError


def parse(options, argv):
    """Reads and checks both halves, so that nothing starts anywhere over a wrong flag.

    Args:
        options: The dataclass of the launcher's own flags; see `trainer.flags.parse`.
        argv: The words after the program's name.

    Returns:
        (an instance of `options`, the trainer's words as a list, the `Config` that they make).

    Raises:
        UsageError: with everything that is wrong in either half.
    """
    at = argv.index("--") if "--" in argv else len(argv)
    parsed, problems = [], []
    for kind, words in ((options, argv[:at]), (Config, argv[at + 1:])):
        try:
            parsed.append(flags.parse(kind, words))
        except UsageError as error:
            problems += error.problems
    if problems:
        raise UsageError(problems, "the launcher's flags stand before --, the trainer's after it; --help on either "
                         "side lists that side's")
    return parsed[0], argv[at + 1:], parsed[1]
