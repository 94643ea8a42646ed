"""What all workers decide together between two calls of the device loop."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from trainer.distributed.collectives import all_reduce_ints, raise_any

if TYPE_CHECKING:
    from trainer.distributed.runtime import Runtime
    from trainer.errors import LockstepError


@dataclasses.dataclass(frozen=True)
class Decision:
    """What comes next. After `agree` it is the same on all workers.

    Args:
        stop: Whether the run is to stop, because a signal came on at least one worker.
        num_steps: Steps of the next call, as the chief chose.
        save: Whether a checkpoint is due, as the chief decided.
        out_of_time: Whether `--max_hours` are over, by the chief's clock.
        bad_examples: How many examples could not be read since the start, over all workers.
        own_microseconds: How long each worker's own part of the last call took; empty for one worker.
    """

    stop: bool
    num_steps: int
    save: bool
    out_of_time: bool
    bad_examples: int
    own_microseconds: list[int]


def agree(runtime: Runtime, local: Decision, failure: LockstepError | None) -> Decision:
    """Agrees with all workers on what comes next.

    Args:
        runtime: The devices of this worker.
        local: What this worker would decide; its own time is in its element of `own_microseconds`, the others are 0.
        failure: What failed on this worker, or None.

    Returns:
        What all workers decided.

    Raises:
        LockstepError: on all workers, if something failed on one.
    """
    chiefs = [local.num_steps, int(local.save), int(local.out_of_time)] if runtime.is_chief else [0, 0, 0]
    stops, num_steps, save, out_of_time, failed, bad_examples, *own_microseconds = all_reduce_ints(
        runtime, [int(local.stop), *chiefs, int(failure is not None), local.bad_examples, *local.own_microseconds])
    if failed:
        raise_any(runtime, failure)
    return Decision(stops > 0, num_steps, save > 0, out_of_time > 0, bad_examples, own_microseconds)
