"""Checks each step's loss for what a user should know: updates that were skipped, losses that jump."""

from __future__ import annotations

import bisect
import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.errors import DivergedError, first_few

if TYPE_CHECKING:
    from trainer.config import Config

_WINDOW = 101  # number of losses in the running median
_ENOUGH = 20  # number of losses before any loss is compared with the median
# A mean loss below this is no spike: where a model has all but memorized its images, one that it gets wrong makes a
# batch's loss many times the median.
_LEAST_SPIKE = 0.5


class LossMonitor:
    """Finds steps whose update was skipped, and losses far over the median of the last 101 finite ones.

    A loss of at most 0.5 is never far over it.

    Args:
        config: The settings spike_factor and max_bad_steps.
        precision: float32, bfloat16 or float16.
        ids_of: A function of a step to the ids of the examples of its batch.
        recent: What the attribute `recent` was after the step before; () at the start of a run.
    """

    def __init__(self, config: Config, precision: str, ids_of: Callable[[int], list[int]],
                 recent: Sequence[float] = ()) -> None:
        self._factor, self._max_bad_steps, self._ids_of = config.spike_factor, config.max_bad_steps, ids_of
        # Loss scaling finds its scale by skipping steps: a single skipped step is not worth a report there.
        self._reported_length = 5 if precision == "float16" else 1
        self._recent, self._sorted = collections.deque(recent), sorted(recent)
        self._events: list[dict[str, Any]] = []

    @property
    def recent(self) -> list[float]:
        """The losses of the running median, oldest first; checkpoints hold them."""
        return list(self._recent)

    def check(self, step: int, loss: float, skipped_in_a_row: int,
              excused_in_a_row: int = 0) -> dict[str, Any] | None:
        """Checks the loss of a step.

        Args:
            step: The step.
            loss: The mean loss over its batch.
            skipped_in_a_row: Number of steps up to this one that were skipped in a row; 0 if this one wasn't.
            excused_in_a_row: Number of those that don't count against --max_bad_steps: the loss was finite, and
                float16's loss scale could still be lowered until the gradients are finite, too.

        Returns:
            None, or an event, a dict for metrics.jsonl: event (skipped or spike), step, loss (None if it isn't
            finite), in_row (and excused, if any) or median, and the ids of the batch.
        """
        median = self._median()
        finite = math.isfinite(loss)
        if finite and self._factor:
            self._add(loss)
        if skipped_in_a_row:
            event = {"event": "skipped", "step": step, "loss": loss if finite else None, "in_row": skipped_in_a_row,
                     **({"excused": excused_in_a_row} if excused_in_a_row else {})}
        elif self._factor and finite and loss > max(self._factor * median, _LEAST_SPIKE):
            event = {"event": "spike", "step": step, "loss": loss, "median": median}
        else:
            return None
        event["ids"] = self._ids_of(step)
        self._events.append(event)
        return event

    def pop_events(self) -> list[dict[str, Any]]:
        """The events since the last call of this method."""
        events, self._events = self._events, []
        return events

    def should_report(self, event: Mapping[str, Any]) -> bool:
        """Whether a user should read an event: each spike, and one event of each streak of skipped steps."""
        return event["event"] == "spike" or event["in_row"] == self._reported_length

    def raise_if_diverged(self, event: Mapping[str, Any]) -> None:
        """Ends the run if an event is the last of too many skipped steps.

        Raises:
            DivergedError: naming the examples of the last step.
        """
        in_row = event.get("in_row", 0)
        if in_row - event.get("excused", 0) >= self._max_bad_steps:
            raise DivergedError(
                f"the gradients were not finite in {in_row} steps in a row, up to step {event['step']:,} "
                f"(--max_bad_steps={self._max_bad_steps}); their updates were skipped. The last one's examples: "
                f"{first_few(event['ids'])} (--ledger writes those of all steps)",
                "where it computes in float16 or bfloat16, --precision=float32 goes on from the last checkpoint; a "
                "lower --learning_rate, --warmup_epochs or --clip_norm=1 make another run, in another --model_dir")

    def _median(self) -> float:
        """The running median; infinite before there are enough losses."""
        return self._sorted[len(self._sorted) // 2] if len(self._sorted) >= _ENOUGH else math.inf

    def _add(self, loss: float) -> None:
        self._recent.append(loss)
        bisect.insort(self._sorted, loss)
        if len(self._recent) > _WINDOW:
            del self._sorted[bisect.bisect_left(self._sorted, self._recent.popleft())]
