"""How much of a step goes by waiting for other workers, and for whom."""

import statistics
import time

import numpy as np

_SLOWER = 1.3  # times the others' median
_IN_A_ROW = 5  # calls of the device loop, of about a second


class StragglerMonitor:
    """Learns from when each worker's own part of a step was done, and when the all-reduce was.

    What a step takes is the slowest worker's own part, and the all-reduce. So a worker waits for others as long as its
    own part is shorter than the slowest one's, and what is left is the way of the gradients.

    Args:
        runtime: The `Runtime`.

    Attributes:
        shares: Of the last call: waiting_share, the mean over workers of a step's share in which they wait for others;
            all_reduce_share, the share in which gradients travel. Empty before the first, and for one worker.
    """

    def __init__(self, runtime):
        self._runtime, self.shares = runtime, {}
        self._own = self._seconds = 0.0
        self._steps = self._slow_in_row = 0
        self._slowest = None

    def begin(self):
        """Says that a call of the device loop begins."""
        self._began = time.time()  # the clock of the graph's time stamps

    def note(self, times):
        """Takes what a call measured.

        Args:
            times: float64 [n, 2], as in `StepRecords`.
        """
        if times is None:
            return
        own_done, reduced = times.T
        self._own = float(np.sum(own_done - np.concatenate([[self._began], reduced[:-1]])))
        self._seconds, self._steps = float(reduced[-1] - self._began), len(times)

    def local(self):
        """What the others are to be told: microseconds in each worker's place; nothing if there are no others."""
        if self._runtime.workers == 1:
            return []
        own = max(0, int(1e6 * self._own))
        return [own if worker == self._runtime.worker else 0 for worker in range(self._runtime.workers)]

    def update(self, all_own):
        """Takes what all told.

        Args:
            all_own: The sums of `local` over the workers.

        Returns:
            A sentence if it turned out that one worker is slow; else None.
        """
        seconds, self._own, self._seconds = self._seconds, 0.0, 0.0
        if not all_own or not seconds:
            return None
        own = np.array(all_own) / 1e6
        waiting = min(1.0, float(own.max() - own.mean()) / seconds)
        self.shares = {"waiting_share": round(waiting, 4),
                       "all_reduce_share": round(min(1.0, max(0.0, 1 - float(own.max()) / seconds)), 4)}
        return self._judge(own, seconds)

    def _judge(self, own, seconds):
        slowest = int(own.argmax())
        others = statistics.median(np.delete(own, slowest))
        slow = own[slowest] > _SLOWER * others and own[slowest] - others > 0.1 * seconds
        self._slow_in_row = self._slow_in_row + 1 if slow and slowest == self._slowest else int(slow)
        self._slowest = slowest
        if self._slow_in_row != _IN_A_ROW:
            return None
        mine, theirs = (1e3 * part / self._steps for part in (own[slowest], others))
        return (f"worker {slowest} is slow: its own part of a step takes {mine:.3g} ms, the others' {theirs:.3g} ms; "
                f"they wait for it in {(own[slowest] - others) / seconds:.0%} of each step")
