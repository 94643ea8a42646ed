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
