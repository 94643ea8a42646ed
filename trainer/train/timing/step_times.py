"""Where the time of training goes: calls of the device loop, saves, and the host's own work between calls.

What the device waits for inside a call isn't seen from here. Of several workers the stamps of their all-reduces tell
how much of a call was communication; on CPUs each step's stamps tell how long it waited for its batch. On GPUs that is
part of the call, and isn't told apart from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config import Config

_SLOW = 0.1  # of the time of an epoch: a cause that is worth a sentence
_ENOUGH_SECONDS = 10.0  # of training, of which a share says something
_NAMES = {"host": "the host's work between calls of the device loop", "saving": "waiting for checkpoints",
          "input": "waiting for images", "all_reduce": "gradients on their way between workers",
          "waiting": "waiting for the slowest worker"}


@dataclasses.dataclass
class Seconds:
    """Seconds of training.

    Args:
        device: Inside calls of the device loop, without the next three.
        input: Waiting for batches; 0 where it isn't told apart.
        all_reduce: Gradients on their way; 0 for one worker, where it isn't told apart.
        waiting: Waiting for other workers, as a mean over the workers.
        host: Between the calls.
        saving: Waiting for checkpoints, between the calls.
        steps: Number of steps.
    """

    device: float = 0.0
    input: float = 0.0
    all_reduce: float = 0.0
    waiting: float = 0.0
    host: float = 0.0
    saving: float = 0.0
    steps: int = 0

    @property
    def total(self) -> float:
        """All seconds."""
        return self.device + self.input + self.all_reduce + self.waiting + self.host + self.saving


class StepTimes:
    """Adds up where the time of training goes, without evaluations, compiling and exports."""

    def __init__(self) -> None:
        self._epoch = Seconds()
        self._saving = 0.0  # since the call before
        self._stalled = 0.0  # since `pop_stalled`
        self._said: str | None = None

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """For a block in which training waits for a checkpoint."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self._saving += seconds
            self._stalled += seconds

    def skip(self) -> None:
        """Forgets saves since the last call: what lay between the calls isn't counted as training."""
        self._saving = 0.0

    def pop_stalled(self) -> float:
        """Seconds in which training waited for checkpoints since this was called before, evaluations' included."""
        stalled, self._stalled = self._stalled, 0.0
        return stalled

    def add(self, steps: int, seconds: float, in_call: float, shares: Mapping[str, float],
            input_wait: float = 0.0) -> Seconds:
        """Adds a call.

        Args:
            steps: Its steps.
            seconds: From the end of the call before to its end.
            in_call: From its begin to its end.
            shares: As `StragglerMonitor.shares` has them.
            input_wait: For how many seconds its steps waited for batches.

        Returns:
            The seconds of this call.
        """
        saving, self._saving = min(self._saving, seconds), 0.0
        all_reduce, waiting = (in_call * shares.get(name, 0.0) for name in ("all_reduce_share", "waiting_share"))
        input_wait = min(input_wait, in_call)
        call = Seconds(max(0.0, in_call - input_wait - all_reduce - waiting), input_wait, all_reduce, waiting,
                       max(0.0, seconds - in_call - saving), saving, steps)
        self._epoch = Seconds(*(mine + new for mine, new in zip(
            dataclasses.astuple(self._epoch), dataclasses.astuple(call), strict=True)))
        return call

    def end_epoch(self, epoch: int, config: Config) -> str | None:
        """Ends an epoch; one of under ten seconds goes on in the next.

        Args:
            epoch: Epochs done.
            config: The run's settings.

        Returns:
            A sentence, if something other than the devices' work took over a tenth of the epoch, with what to try; None
            if nothing did, or the sentence before said the same.
        """
        spent = self._epoch
        if spent.total < _ENOUGH_SECONDS:
            return None
        self._epoch = Seconds()
        cause = max(_NAMES, key=lambda name: getattr(spent, name))
        share = getattr(spent, cause) / spent.total
        said, self._said = self._said, cause if share > _SLOW else None
        if self._said is None or self._said == said:
            return None
        each = 1e3 / spent.steps
        return (f"epoch {epoch}: {share:.0%} of a step, {each * getattr(spent, cause):.3g} of "
                f"{each * spent.total:.3g} ms, went to {_NAMES[cause]}; try {_advice(cause, config)}")


def _advice(cause: str, config: Config) -> str:
    """What to try, as a user types it."""
    if cause == "saving":
        if config.checkpoint_every_steps:
            return f"--checkpoint_every_steps={10 * config.checkpoint_every_steps}"
        return f"--checkpoint_every_minutes={max(10.0, 2 * config.checkpoint_every_minutes):g}"
    if cause == "input":
        return ("python -m trainer prepare, whose records are read in order, or more cores" if config.dataset in (
            "folder", "csv") else "more cores: python -m trainer bench says how many images a core reads")
    if cause == "all_reduce":
        return ("--all_reduce=bfloat16" if config.all_reduce == "float32" else
                "a larger --batch_size or --accumulate_steps=2, which are another run")
    if cause == "waiting":
        return "python -m trainer bench on each machine: one of them is slower than the others"
    if config.ledger:
        return "--noledger"
    if config.log_every_steps < 50:
        return "--log_every_steps=50"
    return "a larger --batch_size, which is another run"
