"""Why a job ended: the first cause among the ends of its workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from launch import restart_policy
from launch.workers.worker import Worker
from trainer.errors import BusyError, LockstepError, Stopped, WorkerError

_FIX = "fix:"
_AGAIN = "run the same command again; it goes on from the last checkpoint"
# How likely an end is only the consequence of another worker's: a number for each kind, the likeliest last.
_CLEAR, _KILLED, _DEFECT, _LEFT_ALONE, _ASKED = range(5)


@dataclasses.dataclass(frozen=True)
class ExitCause:
    """The first cause of a job's end.

    Args:
        code: The first failing worker's exit code, or minus a signal's number; 0 if all workers ended well.
        lines: The worker and its last words, as a user reads them.
    """

    code: int
    lines: tuple[str, ...] = ()

    def starts_again(self, restarts: int) -> bool:
        """Whether the job is to be started again.

        Args:
            restarts: How often the job was started again already.
        """
        # A chief that lost its launcher may still be saving when its successor comes.
        return restart_policy.starts_again(self.code) or (restarts > 0 and self.code == BusyError.code)

    def as_error(self, restarts: int, stop_signal: str | None) -> LockstepError:
        """The end of the launcher itself.

        Args:
            restarts: How often the job was started again.
            stop_signal: The name of the signal by which the launcher was asked to stop, or None.

        Returns:
            The error to raise.
        """
        code = WorkerError.code if self.code < 0 or self.code > 128 else self.code
        causes = [line for line in self.lines if not line.strip().startswith(_FIX)]
        again = restart_policy.starts_again(self.code)
        fix = next((line.strip().removeprefix(_FIX).strip() for line in self.lines if line not in causes),
                   _AGAIN if again else "look at the logs")
        text = "\n".join(causes).removeprefix("lockstep: ")
        if restarts:
            text += f"\n  the job was started {restarts + 1} times"
        if stop_signal and again and code != Stopped.code:
            return Stopped(f"asked to stop ({stop_signal}); not all workers could save before they ended:\n  {text}",
                           _AGAIN)
        error = LockstepError(text, fix)
        error.code = code
        return error


def find_exit_cause(workers: Sequence[Worker], logs: Path, patience: float) -> ExitCause:
    """Finds the first cause.

    Args:
        workers: The job's, all ended or not yet started.
        logs: The folder of the workers' logs.
        patience: How many seconds after the first failure the launcher began to end workers itself.

    Returns:
        The `ExitCause`; its code is 0 if no worker failed.
    """
    failed = [worker for worker in workers if worker.code]
    if not failed:
        return ExitCause(0)
    first = min(worker.ended_at for worker in failed)

    def order(worker: Worker) -> tuple[bool, int, float]:
        ended_by_launcher = worker.ended_at - first > patience and not worker.stopped
        # Of the workers that were asked to stop, the chief knows best what was saved.
        return ended_by_launcher, _kind(worker), worker.rank if worker.code == Stopped.code else worker.ended_at

    cause = min(failed, key=order)
    assert cause.code is not None
    log = logs / f"{cause.rank}.log"
    head = f"lockstep: worker {cause.rank} on {cause.label} {cause.how}; all of it is in {log}"
    last_words = [] if cause.stopped else cause.last_words()
    return ExitCause(cause.code, (head, *(f"  {line}" for line in last_words)))


def _kind(worker: Worker) -> int:
    """How likely a failed worker's end is only a consequence: `_CLEAR` … `_ASKED`."""
    assert worker.code is not None
    if worker.stopped:
        return _CLEAR
    if worker.lost or worker.code < 0 or worker.code > 128:
        return _KILLED
    if worker.code in (WorkerError.code, Stopped.code):
        return _ASKED if worker.code == Stopped.code else _LEFT_ALONE
    return _CLEAR if 64 <= worker.code < 79 else _DEFECT
