"""`--microbatch=auto`: the largest passes that fit into memory, each size tried in a process of its own.

A process that runs out of memory may leave the device's memory in pieces, or be ended by the system. The run itself
begins once it is known what fits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import Config, mixes
from trainer.distributed import collectives
from trainer.errors import DeviceError, UsageError, translate
from trainer.plan import Job, make_plan, pass_sizes
from trainer.process.exit import run_as_process
from trainer.process.libraries.children import command_of

if TYPE_CHECKING:
    from trainer.data.dataset import Dataset
    from trainer.distributed.runtime import Runtime

_TOO_LARGE = 3  # the exit code of a trial that ran out of memory
_EXAMPLES = 2  # images that a trial makes up


def decide(config: Config, data: Dataset, runtime: Runtime, remembered: Callable[[], int | None]) -> int | None:
    """The rows of a pass, the same on all workers.

    Args:
        config: The run's settings.
        data: The data of the run; only its shapes count.
        runtime: The devices.
        remembered: Returns what the run decided before, or None; called on the chief.

    Returns:
        The rows of a pass over all replicas; None where `--microbatch` isn't `auto`.

    Raises:
        UsageError: if no passes fit.
        DeviceError: if a trial fails otherwise.
    """
    if config.microbatch != "auto" or config.known_batch_size % runtime.replicas:
        return None
    rows = 0
    with collectives.all_or_none(runtime):
        if runtime.is_chief:
            rows = remembered() or largest(_sizes(config, runtime.replicas), lambda size: _fits(
                size, config, data, runtime))
    return collectives.broadcast(runtime, rows)


def _sizes(config: Config, replicas: int) -> list[int]:
    """The sizes that a pass may have, the largest first."""
    return [rows for rows in pass_sizes(config, replicas) if not mixes(config.augment) or rows // replicas % 2 == 0]


def largest(sizes: Sequence[int], fits: Callable[[int], bool]) -> int:
    """The first of some falling sizes that fits, found in few trials: what is smaller than one that fits, fits.

    Raises:
        UsageError: if none fits.
    """
    low, high = 0, len(sizes)  # all before `low` are too large, and all from `high` on fit
    middle = 0  # all rows at once is what fits most often
    while low < high:
        low, high = (low, middle) if fits(sizes[middle]) else (middle + 1, high)
        middle = (low + high) // 2
    if low == len(sizes):
        raise UsageError(f"out of memory: not even passes of {sizes[-1]} rows fit",
                         "use more GPUs, a smaller --model or --image_size, or a --precision of 16 bits")
    return sizes[low]


def _fits(rows: int, config: Config, data: Dataset, runtime: Runtime) -> bool:
    """Whether two steps in passes of so many rows fit into memory, by a process that tries it."""
    local, replicas = len(runtime.devices), runtime.replicas
    own = dataclasses.replace(config, batch_size=config.known_batch_size * local // replicas, strategy="auto",
                              microbatch=str(rows * local // replicas))
    task = {"config": dataclasses.asdict(own), "classes": len(data.classes), "image_shape": list(data.image_shape)}
    process = subprocess.Popen(command_of(__name__), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdin and process.stderr
    with process:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        said = process.stderr.read().strip()  # to its end; its input stays open, and tells it that this process lives
        code = process.wait()
    if code in (0, _TOO_LARGE, -signal.SIGKILL, -signal.SIGABRT):
        return code == 0
    raise DeviceError(f"--microbatch=auto: the process that tries passes of {rows} rows ended with {code}"
                      f"{': ' + said.splitlines()[-1] if said else ''}", "give --microbatch a number")


def _main() -> int:
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):  # where memory runs out, the system ends this process and not the run
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        _try(task)
    except Exception as error:
        failure = translate(error)
        if not failure:
            raise
        return _TOO_LARGE if failure.cause.startswith("out of memory") else 0  # the run itself meets it, and says it
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()  # to its end, which comes when the process that writes it ends
    os._exit(1)


def _try(task: Mapping[str, Any]) -> None:
    """Trains two steps on images that it makes up."""
    import numpy as np

    from trainer.data.dataset import in_memory
    from trainer.data.pipeline import open_feed
    from trainer.distributed import runtime
    from trainer.distributed.cluster import Cluster
    from trainer.train.state import TrainState
    from trainer.train.step.train_loop import TrainLoop

    config = dataclasses.replace(Config.from_mapping(task["config"]), epochs=1e6, class_weights="none", train_sizes=())
    examples = np.zeros((_EXAMPLES, *task["image_shape"]), np.uint8), np.arange(_EXAMPLES) % task["classes"]
    data = in_memory("trial", tuple(map(str, range(task["classes"]))), examples, examples)
    started = runtime.start(config, Cluster())
    job = Job(config, make_plan(config, _EXAMPLES, started.replicas), started, data)
    loop = TrainLoop(job, TrainState(job), open_feed(job, first_step=0))
    for _ in range(2):
        loop(1).loss.numpy()


if __name__ == "__main__":
    run_as_process(_main)
