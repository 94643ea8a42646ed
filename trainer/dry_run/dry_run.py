"""`--dry_run`: all that a run does, in little, and what the run would take.

    train one step, evaluate, save
    resume, train another, evaluate, save, export and measure the exports
    time some more steps and an evaluation

It is the loop of every run, on the run's devices and data, in a folder beside the model_dir that is removed afterwards.
Only the splits that are evaluated are shorter.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from trainer.dry_run.estimate import estimate
from trainer.dry_run.first_examples import FirstExamples
from trainer.ending.finish import finish_together
from trainer.loop import read_data, train
from trainer.run import Run

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.distributed.runtime import Runtime
    from trainer.plan import Job
    from trainer.process.signals import StopRequest
    from trainer.process.watchdog import Watchdog
    from trainer.reporting.console import Console
    from trainer.reporting.timeline.record import Timeline
    from trainer.storage.model_dir import ModelDir

_EVALUATED = 512  # images, at most


class _ShortRun(Run):
    """A run that ends after a few steps of its plan.

    Args:
        job: What the run trains.
        last_step: Where it ends.
        **more: As for `Run`.
    """

    def __init__(self, job: Job, last_step: int, **more: Any) -> None:
        self._last_step = min(last_step, job.plan.total_steps)
        super().__init__(job, **more)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self._last_step


def dry_run(config: Config, runtime: Runtime, *, model_dir: ModelDir, console: Console, stop: StopRequest,
            watchdog: Watchdog, timeline: Timeline) -> None:
    """Tries everything that the run would do, and says what it would take.

    Args:
        config: The run's settings.
        runtime: The devices.
        model_dir: A `ScratchDir`, claimed.
        console: The terminal, and a log in the scratch folder.
        stop: Entered; a signal becomes its request.
        watchdog: Entered; ends what makes no progress.
        timeline: Entered; is told of phases and saves.

    Raises:
        LockstepError: what would end the run.
    """
    with stop.nothing_to_save("starting"):
        whole = read_data(config, runtime, model_dir=model_dir, console=console, watchdog=watchdog)
    data = whole.data
    few: dict[str, Any] = {name: FirstExamples(split, min(split.size, _EVALUATED))
                           for name, split in data.splits.items() if name != "train"}
    job = dataclasses.replace(whole, data=dataclasses.replace(data, **few))
    for last_step in (1, 2):
        with stop.nothing_to_save("starting"):
            run = _ShortRun(job, last_step, model_dir=model_dir, console=console, stop=stop, watchdog=watchdog,
                            timeline=timeline)
        with contextlib.closing(run):
            train(run)
            if last_step == 2:
                finish_together(run)
                console.say(estimate(whole, run))
