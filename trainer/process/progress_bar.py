"""A progress bar for commands that take long."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows on stderr how much is done; shows nothing if stderr is not a terminal.

    Args:
        label: What is counted, as a user reads it.
        total: How many there are.

    Yields:
        A function to call with how many more are done.
    """
    if not sys.stderr.isatty():
        yield _show_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  console=Console(stderr=True)) as progress:
        yield functools.partial(progress.advance, progress.add_task(label, total=total))


def _show_nothing(count: int) -> None:
    """Stands for `Progress.advance` where there is no bar."""
