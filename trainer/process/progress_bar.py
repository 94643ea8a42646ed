"""A progress bar for commands that take long."""

import contextlib
import sys


@contextlib.contextmanager
def bar(what, total):
    """Shows on stderr how much is done; on anything but a terminal, nothing.

    Args:
        what: What is counted, for people.
        total: How many there are.

    Yields:
        A function to call with how many more are done.
    """
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
