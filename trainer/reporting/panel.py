"""What a terminal shows while a run trains: a few lines that change in place."""

from __future__ import annotations

import time
from typing import Any

from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainer.process.exit import printable

_REFRESHES_PER_SECOND = 2  # each takes the interpreter from what else waits for it
_FEWEST_LINES = 12  # of a terminal; on a shorter one the panel would hide the sentences above it
_WIDE = 120  # columns from which two facts stand side by side


class TrainingPanel:
    """The whole run's bar with the time left, the last figures, the last checkpoint, the best evaluation, warnings.

    Its methods may be called from any thread.

    Args:
        console: The terminal.
        name: The run's name.
        step, total: Steps done and in all.
        best: The best evaluation so far: step, accuracy; None before the first.
        evaluated: The name of the evaluated split.
    """

    def __init__(self, console: Console, name: str, step: int, total: int, best: dict[str, Any] | None,
                 evaluated: str) -> None:
        self._console, self._name, self._total, self._evaluated = console, name, total, evaluated
        self._step, self._figures, self._left = step, "compiling …", ""
        self._last = self._best = ""
        self._best = "" if best is None else _of_evaluation(best["accuracy"], best["step"])
        self._saved: tuple[str, float] | None = None
        self._warnings, self._last_warning = 0, ""
        self._live = Live(console=console, get_renderable=lambda: self, refresh_per_second=_REFRESHES_PER_SECOND,
                          transient=True)

    def start(self) -> None:
        """Shows the panel until `stop`."""
        self._live.start()

    def stop(self) -> None:
        """Removes the panel."""
        self._live.stop()

    def progress(self, step: int, figures: str, left: str) -> None:
        """Shows what was trained.

        Args:
            step: Steps done.
            figures: Epoch, loss and the like.
            left: The time left, such as 1:02:03; "" if it isn't known yet.
        """
        self._step, self._figures, self._left = step, figures, left

    def evaluated(self, step: int, accuracy: float, is_best: bool) -> None:
        """Shows an evaluation.

        Args:
            step: Its step.
            accuracy: Share of right answers, 0 to 1.
            is_best: Whether it is the best so far.
        """
        self._last = _of_evaluation(accuracy, step)
        if is_best:
            self._best = self._last

    def saved(self, step: int) -> None:
        """Shows that the state of a step is on the disk."""
        self._saved = f"step {step:,}", time.monotonic()

    def warned(self, sentence: str) -> None:
        """Shows a warning beside the number of all of this start."""
        self._warnings, self._last_warning = self._warnings + 1, printable(sentence)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, justify="right")
        done = self._step / self._total if self._total else 1.0
        left = f"{done:.0%}" + (f"   {self._left} left" if self._left else "")
        bar.add_row(Text(f"step {self._step:,}/{self._total:,}"), ProgressBar(self._total, self._step), Text(left))
        if console.height < _FEWEST_LINES:
            yield bar
            return
        lines = Table.grid(expand=True)
        lines.add_row(bar)
        lines.add_row(self._facts(2 if options.max_width >= _WIDE else 1))
        yield Panel(lines, title=Text(printable(self._name), overflow="ellipsis"), title_align="left", box=ROUNDED,
                    border_style="dim")

    def _facts(self, side_by_side: int) -> Table:
        """The lines below the bar: a label and what it is about, one or two of them a line."""
        facts = [("training", self._figures), (self._evaluated, self._of_evaluations())]
        if self._saved:
            step, at = self._saved
            facts.append(("checkpoint", f"{step}, {_ago(time.monotonic() - at)}"))
        if self._warnings:
            facts.append(("warnings", f"{self._warnings:,}; the last: {self._last_warning}"))
        table = Table.grid(expand=True, padding=(0, 1))
        for _ in range(side_by_side):
            table.add_column(no_wrap=True, style="dim")
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        cells = [cell for label, what in facts for cell in (
            Text(label), Text(what, style="yellow" if label == "warnings" else "", overflow="ellipsis", no_wrap=True))]
        for first in range(0, len(cells), 2 * side_by_side):
            table.add_row(*cells[first:first + 2 * side_by_side])
        return table

    def _of_evaluations(self) -> str:
        if not self._best:
            return "not evaluated yet"
        if not self._last:
            return f"best {self._best}"
        return f"{self._last}, the best so far" if self._last == self._best else f"{self._last}; best {self._best}"


def _of_evaluation(accuracy: float, step: int) -> str:
    return f"accuracy {accuracy:.2%} at step {step:,}"


def _ago(seconds: float) -> str:
    """Such as "12 s ago"."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
