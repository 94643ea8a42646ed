"""Looks at each step's loss for what somebody should know: updates that were skipped, losses that jump."""

import bisect
import collections
import math

from trainer.errors import DivergedError

_WINDOW = 101  # losses that the running median is over
_ENOUGH = 20  # of them, before anything is held against it


class LossMonitor:
    """Finds steps whose update was skipped, and losses far over the median of the last 101 finite ones.

    Args:
        config: The run's `Config`: spike_factor and max_bad_steps.
        precision: What the run computes in.
        ids_of: A function of a step's number to the list of example ids of its batch.
        recent: The losses of the steps before, oldest first: what `recent` was then.
    """

    def __init__(self, config, precision, ids_of, recent=()):
        self._factor, self._max_bad_steps, self._ids_of = config.spike_factor, config.max_bad_steps, ids_of
        # Loss scaling finds its scale by skipping steps: with it a single one is nothing to tell.
        self._told = 5 if precision == "float16" else 1
        self._recent, self._sorted = collections.deque(recent), sorted(recent)
        self._found = []

    @property
    def recent(self):
        """The losses that the median is over, a list that goes into checkpoints."""
        return list(self._recent)

    def check(self, step, loss, skipped_in_a_row, excused_in_a_row=0):
        """Looks at a step.

        Args:
            step: Its number.
            loss: The mean over its batch.
            skipped_in_a_row: How many steps up to this one were skipped in a row; 0 if this one wasn't.
            excused_in_a_row: How many of those don't count against --max_bad_steps: the loss was finite, and float16's
                loss scale could still come down to where the gradients are, too.

        Returns:
            None, or a dict for metrics.jsonl: event (skipped or spike), step, loss (None if it isn't
            finite), in_row (and excused, if any) or median, and the ids of the batch.
        """
        median = self._median()
        finite = math.isfinite(loss)
        if finite and self._factor:
            self._take_in(loss)
        if skipped_in_a_row:
            what = {"event": "skipped", "step": step, "loss": loss if finite else None, "in_row": skipped_in_a_row,
                    **({"excused": excused_in_a_row} if excused_in_a_row else {})}
        elif self._factor and finite and loss > self._factor * median:
            what = {"event": "spike", "step": step, "loss": loss, "median": median}
        else:
            return None
        what["ids"] = self._ids_of(step)
        self._found.append(what)
        return what

    def pop_events(self):
        """What was found since the last call."""
        found, self._found = self._found, []
        return found

    def should_report(self, event):
        """Whether people should hear of what was found: of a streak of skipped steps, once."""
        return event["event"] == "spike" or event["in_row"] == self._told

    def raise_if_diverged(self, event):
        """Ends the run if an event is the last of too many skipped steps.

        Raises:
            DivergedError: naming the examples.
        """
        in_row = event.get("in_row", 0)
        if in_row - event.get("excused", 0) >= self._max_bad_steps:
            raise DivergedError(
                f"the gradients were not finite in {in_row} steps in a row, up to step {event['step']:,}; their "
                f"updates were skipped. The last one's examples: {', '.join(map(str, event['ids']))}",
                "lower --learning_rate, add --warmup_epochs or --clip_norm=1; the checkpoints before it are kept")

    def _median(self):
        return self._sorted[len(self._sorted) // 2] if len(self._sorted) >= _ENOUGH else math.inf

    def _take_in(self, loss):
        self._recent.append(loss)
        bisect.insort(self._sorted, loss)
        if len(self._recent) > _WINDOW:
            del self._sorted[bisect.bisect_left(self._sorted, self._recent.popleft())]
