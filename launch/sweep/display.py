"""What a sweep says: a table of its runs while it goes on, or lines where there is no terminal."""

import time

from rich.control import Control
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launch.sweep import results
from trainer.reporting.console import Console

_REFRESH_SECONDS = 1.0
_PLAIN_EVERY_SECONDS = 60.0
_STYLES = {"running": "bold", "done": "green", "failed": "bold red", "again": "yellow", "stopped": "yellow"}
# Where the terminal is too small for all, those of the first states are shown.
_ORDER = ("running", "again", "failed", "stopped", "done", "waiting")
_TITLES = ("", "step", "epoch", "accuracy", "images/s")
_SHORTEST_NAME = 12
_LINES_OF_A_WISH = 2
_BESIDE_ROWS = 4  # title, totals, and a line for the cursor


class Board(Console):
    """Tells how a sweep stands.

    Args:
        log: Path of the file that all of it goes to, with times.
        jobs: List of `runs.Job`.
    """

    def __init__(self, log, jobs):
        super().__init__(log)
        self._jobs, self._numbers = jobs, {job.run.name: number for number, job in enumerate(jobs, 1)}
        self._shown, self._live = time.monotonic(), None

    def __enter__(self):
        if self._rich.is_terminal:
            self._live = Live(console=self._rich, auto_refresh=False, transient=True, redirect_stdout=False,
                              redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(self, *_):
        if self._live:
            self._live.stop()
            self._live = None

    def note(self, job, what):
        """Says what happened to a run."""
        self.say(f"[{self._numbers[job.run.name]}/{len(self._jobs)}] {job.run.name}: {what}")

    def show(self):
        """Shows how all runs stand, if it is time."""
        every = _REFRESH_SECONDS if self._live else _PLAIN_EVERY_SECONDS
        if time.monotonic() - self._shown < every:
            return
        self._shown = time.monotonic()
        if self._live:
            self._live.update(self._table(), refresh=True)
            return
        for job in self._jobs:
            if job.state == "running":
                self.note(job, "  ".join(_figures(job)) or "starting")

    def asked(self, signal):
        """Says that the sweep was asked to stop."""
        if self._live:
            # `StopRequest` wrote a line below the table, past this module.
            self._rich.control(Control.move(0, -_LINES_OF_A_WISH))
        self.say(f"{signal}: the runs save, then stop; a second signal ends them at once")

    def results(self, rows):
        """Prints the table of results."""
        if not self._rich.is_terminal:
            self._rich.width = 1000  # who reads a file or a pipe has no edge where lines are cut
        self._rich.print()
        self._rich.print(results.table(rows), soft_wrap=False)
        self._rich.print()

    def _table(self):
        room = max(1, self._rich.height - _BESIDE_ROWS)
        chosen = sorted(self._jobs, key=lambda job: _ORDER.index(job.state))[:room]
        rows = [(job, (_state(job), *_cells(job))) for job in self._jobs if job in chosen]
        widths = [max(len(title), *(len(cells[at]) for _, cells in rows)) for at, title in enumerate(_TITLES)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", caption=self._totals(),
                      caption_justify="left")
        table.add_column("run", no_wrap=True)
        for title in _TITLES:
            table.add_column(title, no_wrap=True, justify="right" if title else "left")
        left = max(_SHORTEST_NAME, self._rich.width - sum(widths) - 2 * len(widths))
        for job, (state, *cells) in rows:
            table.add_row(Text(_shortened(job.run.name, left)), Text(state, _STYLES.get(job.state, "dim")),
                          *map(Text, cells))
        return table

    def _totals(self):
        counts = [(state, sum(job.state == state for job in self._jobs)) for state in _ORDER]
        return f"{len(self._jobs)} runs: " + ", ".join(f"{count} {state}" for state, count in counts if count)


def _state(job):
    if job.state == "running":
        return job.slot.name
    return f"failed, {job.code}" if job.state == "failed" else job.state


def _shortened(name, width):
    """A name of at most so many letters, without its middle if need be."""
    tail = (width - 1) // 2
    return name if len(name) <= width else f"{name[:width - 1 - tail]}…{name[-tail:]}"


def _cells(job):
    """Step, epoch, accuracy and speed, as far as they are known."""
    known = job.progress()
    total = known.get("total_steps")
    forms = (("step", "{:,}", f"/{total:,}" if isinstance(total, int) else ""),
             ("epoch", "{:.2f}", f"/{job.run.config.epochs:g}"), ("accuracy", "{:.2%}", ""),
             ("images_per_second", "{:,.0f}", ""))
    for name, form, of in forms:
        value = known.get(name)
        yield form.format(value) + of if isinstance(value, (int, float)) else ""


def _figures(job):
    names = ("step {}", "epoch {}", "test accuracy {}", "{} images/s")
    return [name.format(cell) for name, cell in zip(names, _cells(job), strict=True) if cell]
