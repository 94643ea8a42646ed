"""Weights & Biases: WANDB_MODE=offline writes files in WANDB_DIR, which `wandb sync` sends later."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.reporting.trackers.tracker import Point, TrackedRun

HINT = "`wandb login` or WANDB_API_KEY gives it a key; WANDB_MODE=offline needs neither key nor network"
_PROJECT = "lockstep"
_INIT_SECONDS = 30.0


def connect(run: TrackedRun) -> WandbRun:
    """Opens the run, or makes it.

    Args:
        run: The run. Without an id, WANDB_RUN_ID names one. WANDB_PROJECT, WANDB_NAME and all other variables are
            wandb's own.
    """
    wandb: Any = importlib.import_module("wandb")  # an extra
    patience = {} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": _INIT_SECONDS}
    return WandbRun(wandb.init(
        project=os.environ.get("WANDB_PROJECT") or _PROJECT, name=os.environ.get("WANDB_NAME") or run.name,
        id=run.tracker_id or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4), resume="allow",
        # What the process prints is not the run's, and nothing is asked on the terminal.
        settings=wandb.Settings(console="off", silent=True, **patience)), run)


class WandbRun:
    """A run in Weights & Biases; a `Tracker`.

    Args:
        opened: A `wandb.Run`.
        run: The run.

    Attributes:
        id, place: As in `Tracker`.
    """

    def __init__(self, opened: Any, run: TrackedRun) -> None:
        self._opened, self._folder, self.id = opened, run.folder, opened.id
        folder = Path(opened.dir).parent  # of this start; its files lie in files/
        self.place = (f"offline; `wandb sync {folder}` sends it" if opened.offline else opened.url or "disabled")
        opened.config.update(dict(run.settings), allow_val_change=True)

    def last_step(self) -> int | None:
        """The last step that the server has; None where there is none to ask, offline."""
        return None if self._opened.offline or self._opened.disabled else self._opened.starting_step - 1

    def log(self, points: Sequence[Point]) -> None:
        """Takes points; the client sends them in the background."""
        for point in points:
            self._opened.log({**point.metrics, "_timestamp": point.time}, step=point.step, commit=True)

    def result(self, numbers: Mapping[str, float], words: Mapping[str, str], step: int, files: Sequence[Path]) -> None:
        """Takes the result as the run's summary, named result/…, and the files."""
        self._opened.summary.update({f"result/{name}": value for name, value in {**numbers, **words}.items()})
        for path in files:
            self._opened.save(str(path), base_path=str(self._folder), policy="now")

    def close(self, code: int | None) -> None:
        """Ends the run; one that was stopped is marked as preempted."""
        if code == 75:
            self._opened.mark_preempting()
        self._opened.finish(exit_code=1 if code is None else code)
