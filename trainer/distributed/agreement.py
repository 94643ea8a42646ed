"""What all workers decide together between two calls of the device loop."""

import dataclasses

from trainer.distributed.collectives import all_reduce_ints, raise_any


@dataclasses.dataclass(frozen=True)
class Decision:
    """The same on all workers.

    Args:
        stop: Whether somebody wants the run to stop.
        num_steps: Steps of the next call; the chief's.
        save: Whether a checkpoint is due; the chief's.
        bad_examples: How many examples could not be read since the start, over all workers.
        own_microseconds: How long each worker's own part of the last call took; empty for one worker.
    """

    stop: bool
    num_steps: int
    save: bool
    bad_examples: int
    own_microseconds: list


def agree(runtime, mine, failure):
    """Agrees with all workers on what comes next.

    Args:
        runtime: The `Runtime`.
        mine: This worker's `Decision`; what it took itself stands in its own place of `own_microseconds`, 0 in others.
        failure: What failed on this worker, a `LockstepError`, or None.

    Returns:
        The `Decision` of all.

    Raises:
        LockstepError: on all workers, if something failed on one.
    """
    chiefs = [mine.num_steps, int(mine.save)] if runtime.is_chief else [0, 0]
    stops, num_steps, save, failed, bad, *own = all_reduce_ints(
        runtime, [int(mine.stop), *chiefs, int(failure is not None), mine.bad_examples, *mine.own_microseconds])
    if failed:
        raise_any(runtime, failure)
    return Decision(stops > 0, num_steps, save > 0, bad, own)
