"""How much of a step goes by waiting for other workers, and for which worker."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trainer.distributed.runtime import Runtime

_SLOWER = 1.3  # times the others' median
_IN_A_ROW = 5  # calls of the device loop, of about a second


class StragglerMonitor:
    """Learns from when each worker's own part of a step was done, and when the all-reduce was.

    The time of a step is the slowest worker's own part, and the all-reduce. So a worker waits for others as long as its
    own part is shorter than the slowest worker's, and the rest of the step's time is that of the all-reduce.

    Args:
        runtime: The devices of this worker.

    Attributes:
        shares: Of the last call: waiting_share, the fraction of a step in which workers wait for others, as a mean over
            the workers; all_reduce_share, the fraction in which gradients travel. Empty before the first call, and for
            one worker.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.shares: dict[str, float] = {}
        self._own = self._seconds = 0.0
        self._steps = self._slow_in_row = 0
        self._slowest: int | None = None

    def begin(self) -> None:
        """Notes that a call of the device loop begins."""
        self._began = time.time()  # the clock of the graph's time stamps

    def note(self, times: np.ndarray | None) -> None:
        """Adds what a call measured.

        Args:
            times: float64 [n, 2], as in `StepRecords`; None for one worker.
        """
        if times is None:
            return
        own_done, reduced = times.T
        self._own = float(np.sum(own_done - np.concatenate([[self._began], reduced[:-1]])))
        self._seconds, self._steps = float(reduced[-1] - self._began), len(times)

    def local(self) -> list[int]:
        """This worker's microseconds at the index of its rank, 0 at the others; empty for one worker."""
        if self._runtime.workers == 1:
            return []
        own = max(0, int(1e6 * self._own))
        return [own if worker == self._runtime.worker else 0 for worker in range(self._runtime.workers)]

    def update(self, all_own: Sequence[int]) -> str | None:
        """Compares the times of all workers.

        Args:
            all_own: The sums of `local` over the workers, in microseconds.

        Returns:
            A sentence if one worker has been slow in several calls; else None.
        """
        seconds, self._own, self._seconds = self._seconds, 0.0, 0.0
        if not all_own or not seconds:
            return None
        own = np.array(all_own) / 1e6
        waiting = min(1.0, float(own.max() - own.mean()) / seconds)
        self.shares = {"waiting_share": round(waiting, 4),
                       "all_reduce_share": round(min(1.0, max(0.0, 1 - float(own.max()) / seconds)), 4)}
        return self._warning(own, seconds)

    def _warning(self, own: np.ndarray, seconds: float) -> str | None:
        """The sentence that `update` returns, from each worker's own seconds of a call and those of the call."""
        slowest = int(own.argmax())
        others = statistics.median(np.delete(own, slowest))
        slow = own[slowest] > _SLOWER * others and own[slowest] - others > 0.1 * seconds
        self._slow_in_row = self._slow_in_row + 1 if slow and slowest == self._slowest else int(slow)
        self._slowest = slowest
        if self._slow_in_row != _IN_A_ROW:
            return None
        slow_ms, usual_ms = (1e3 * part / self._steps for part in (own[slowest], others))
        return (f"worker {slowest} is slow: its own part of a step takes {slow_ms:.3g} ms, the others' {usual_ms:.3g} "
                f"ms; they wait for it in {(own[slowest] - others) / seconds:.0%} of each step")
