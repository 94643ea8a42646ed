"""Why a job ended: the first cause among the ends of its workers."""

import dataclasses

from launch import restart_policy
from trainer.errors import BusyError, LockstepError, Stopped, WorkerError

_FIX = "fix:"
_AGAIN = "run the same command again; it goes on from the last checkpoint"
# How likely an end is only the consequence of another worker's: a number for each kind, the likeliest last.
_CLEAR, _KILLED, _DEFECT, _LEFT_ALONE, _ASKED = range(5)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """See the module.

    Args:
        code: The first cause's exit code, or minus a signal's number; 0 if all ended well.
        lines: What it was, for people.
    """

    code: int
    lines: tuple[str, ...] = ()

    def starts_again(self, restarts):
        """Whether the job is to be started again, having been started again so often already."""
        # A chief that lost its launcher may still be saving when its successor comes.
        return restart_policy.starts_again(self.code) or (restarts > 0 and self.code == BusyError.code)

    def as_error(self, restarts, asked):
        """The end of the launcher itself.

        Args:
            restarts: How often the job was started again.
            asked: The signal by which the launcher was asked to stop, or None.

        Returns:
            A `LockstepError`.
        """
        code = WorkerError.code if self.code < 0 or self.code > 128 else self.code
        said = [line for line in self.lines if not line.strip().startswith(_FIX)]
        again = restart_policy.starts_again(self.code)
        fix = next((line.strip().removeprefix(_FIX).strip() for line in self.lines if line not in said),
                       _AGAIN if again else "look at the logs")
        text = "\n".join(said).removeprefix("lockstep: ")
        if restarts:
            text += f"\n  the job was started {restarts + 1} times"
        if asked and again and code != Stopped.code:
            return Stopped(f"asked to stop ({asked}); not all workers could save before they ended:\n  {text}",
                           _AGAIN)
        error = LockstepError(text, fix)
        error.code = code
        return error


def judge(workers, logs, patience):
    """Finds the first cause.

    Args:
        workers: List of `worker.Worker`, all ended or not yet started.
        logs: The folder of their logs.
        patience: Seconds after the first failure from when on the launcher ended workers itself.

    Returns:
        The `Verdict`.
    """
    failed = [worker for worker in workers if worker.code]
    if not failed:
        return Verdict(0)
    first = min(worker.ended_at for worker in failed)

    def rank(worker):
        ended_by_us = worker.ended_at - first > patience and not worker.stopped
        # Of those that were asked to stop, the chief knows best what was saved.
        return ended_by_us, _kind(worker), worker.number if worker.code == Stopped.code else worker.ended_at

    cause = min(failed, key=rank)
    log = logs / f"{cause.number}.log"
    head = f"lockstep: worker {cause.number} on {cause.label} {cause.how}; all of it is in {log}"
    said = [] if cause.stopped else cause.last_words()
    return Verdict(cause.code, (head, *(f"  {line}" for line in said)))


def _kind(worker):
    if worker.stopped:
        return _CLEAR
    if worker.lost or worker.code < 0 or worker.code > 128:
        return _KILLED
    if worker.code in (WorkerError.code, Stopped.code):
        return _ASKED if worker.code == Stopped.code else _LEFT_ALONE
    return _CLEAR if 64 <= worker.code < 79 else _DEFECT
