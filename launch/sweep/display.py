"""What a sweep prints: a table of its runs while it goes on, or lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.control import Control
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launch.sweep import results
from launch.sweep.job import Job
from trainer.process.exit import printable
from trainer.reporting.console import Console

_REFRESH_SECONDS = 1.0
_PLAIN_EVERY_SECONDS = 60.0
_STYLES = {"running": "bold", "done": "green", "failed": "bold red", "again": "yellow", "stopped": "yellow"}
# Where the terminal is too small for all runs, those in the first of these states are shown.
_ORDER = ("running", "again", "failed", "stopped", "done", "waiting")
_TITLES = ("", "step", "epoch", "accuracy", "images/s")
_SHORTEST_NAME = 12
_LINES_OF_A_STOP_REQUEST = 2
_LINES_BESIDE_ROWS = 4  # title, totals, and a line for the cursor
_WIDTH_WITHOUT_TERMINAL = 1000  # a file or a pipe has no edge where lines are cut


class Display(Console):
    """Shows how a sweep stands.

    Args:
        log: Path of the file that every sentence goes to, with the time; None for none.
        jobs: The sweep's.
    """

    def __init__(self, log: Path | None, jobs: Sequence[Job]) -> None:
        super().__init__(log)
        self._jobs, self._ranks = jobs, {job.run.name: rank for rank, job in enumerate(jobs, 1)}
        self._shown_at = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if self._rich.is_terminal:
            self._live = Live(console=self._rich, auto_refresh=False, transient=True, redirect_stdout=False,
                              redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def note(self, job: Job, event: str) -> None:
        """Prints what happened to a run."""
        self.say(f"[{self._ranks[job.run.name]}/{len(self._jobs)}] {job.run.name}: {event}")

    def show(self) -> None:
        """Shows how all runs stand, if the last time is long enough ago."""
        every = _REFRESH_SECONDS if self._live else _PLAIN_EVERY_SECONDS
        if time.monotonic() - self._shown_at < every:
            return
        self._shown_at = time.monotonic()
        if self._live:
            self._live.update(self._table(), refresh=True)
            return
        for job in self._jobs:
            if job.state == "running":
                self.note(job, "  ".join(_figures(job)) or "starting")

    def stop_requested(self, signal: str) -> None:
        """Prints that the sweep was asked to stop.

        Args:
            signal: The signal's name.
        """
        if self._live:
            # `StopRequest` wrote a line below the table, past this module.
            self._rich.control(Control.move(0, -_LINES_OF_A_STOP_REQUEST))
        self.say(f"{signal}: the runs save, then stop; a second signal ends them at once")

    def results(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Prints the table of results.

        Args:
            rows: As `results.rows` returns them.
        """
        if not self._rich.is_terminal:
            self._rich.width = _WIDTH_WITHOUT_TERMINAL
        self._rich.print()
        self._rich.print(results.table(rows), soft_wrap=False)
        self._rich.print()

    def _table(self) -> Table:
        room = max(1, self._rich.height - _LINES_BESIDE_ROWS)
        chosen = sorted(self._jobs, key=_urgency)[:room]
        rows = [(job, (_state(job), *_cells(job))) for job in self._jobs if job in chosen]
        widths = [max(len(title), *(len(cells[column]) for _, cells in rows)) for column, title in enumerate(_TITLES)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", caption=self._totals(),
                      caption_justify="left")
        table.add_column("run", no_wrap=True)
        for title in _TITLES:
            table.add_column(title, no_wrap=True, justify="right" if title else "left")
        left = max(_SHORTEST_NAME, self._rich.width - sum(widths) - 2 * len(widths))
        for job, (state, *cells) in rows:
            table.add_row(Text(_shortened(printable(job.run.name), left)), Text(state, _STYLES.get(job.state, "dim")),
                          *map(Text, cells))
        return table

    def _totals(self) -> str:
        counts = [(state, sum(job.state == state for job in self._jobs)) for state in _ORDER]
        return f"{len(self._jobs)} runs: " + ", ".join(f"{count} {state}" for state, count in counts if count)


def _urgency(job: Job) -> int:
    return _ORDER.index(job.state)


def _state(job: Job) -> str:
    if job.state == "running" and job.slot:
        return job.slot.name
    return f"failed, {job.code}" if job.state == "failed" else job.state


def _shortened(name: str, width: int) -> str:
    """A name of at most so many letters, without its middle if it is longer."""
    tail = (width - 1) // 2
    return name if len(name) <= width else f"{name[:width - 1 - tail]}…{name[-tail:]}"


def _cells(job: Job) -> Iterator[str]:
    """Step, epoch, accuracy and speed; a value that isn't known is an empty text."""
    known = job.progress()
    total = known.get("total_steps")
    forms = (("step", "{:,}", f"/{total:,}" if isinstance(total, int) else ""),
             ("epoch", "{:.2f}", f"/{job.run.config.epochs:g}"), ("accuracy", "{:.2%}", ""),
             ("images_per_second", "{:,.0f}", ""))
    for name, form, of_total in forms:
        value = known.get(name)
        yield form.format(value) + of_total if isinstance(value, (int, float)) else ""


def _figures(job: Job) -> list[str]:
    """The cells of a run as words, without those that aren't known."""
    forms = ("step {}", "epoch {}", "accuracy {}", "{} images/s")
    return [form.format(cell) for form, cell in zip(forms, _cells(job), strict=True) if cell]
