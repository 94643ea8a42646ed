"""What a run would take: time, memory and disk, from a dry run."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.distributed import collectives

if TYPE_CHECKING:
    from trainer.plan import Job
    from trainer.run import Run

_TIMED_SECONDS = 0.5  # at least


def estimate(job: Job, run: Run) -> str:
    """Times some more steps and an evaluation, and says what a whole run would take.

    Args:
        job: What the whole run trains.
        run: Its dry run, which has exported; all workers call this together.

    Returns:
        A text of several lines; "" on workers that aren't the chief.
    """
    step_seconds, image_seconds = _time(run)
    if not job.runtime.is_chief:
        return ""
    plan, config, root = job.plan, job.config, Path(job.config.model_dir).expanduser()
    epochs = Fraction(plan.total_steps * plan.batch_size, plan.examples)
    evaluations = max(1, int(epochs / plan.eval_every))
    evaluation_seconds = job.data.evaluated.size * image_seconds
    seconds = plan.total_steps * step_seconds + evaluations * evaluation_seconds
    checkpoint = _size(max(run.model_dir.checkpoints.glob("step-*")))
    disk = (config.keep_checkpoints + 2) * checkpoint + _size(run.model_dir.export)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    existing = next(parent for parent in (root.absolute(), *root.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    lines = [
        "", "dry run: 2 steps, evaluations, a save, a resume"
        + (f" and the exports ({', '.join(config.formats)})" if config.formats else "") + " work. The run would take:",
        f"  time    about {_duration(seconds)}: {plan.total_steps:,} steps" + (
            f" of {1e3 * step_seconds:.3g} ms ({plan.batch_size / step_seconds:,.0f} images/s)" if step_seconds else "")
        + f", {evaluations:,} evaluations of "
        f"{_duration(evaluation_seconds)}, and the start and the exports",
        f"  memory  {memory / 1e9:.2f} GB of the host's" + "".join(
            f", {peak / 1e9:.2f} GB of {name}'s" for name, peak in run.job.runtime.peak_memory().items()),
        f"  disk    about {disk / 1e6:,.1f} MB in {root}, where {free / 1e9:,.1f} GB are free: "
        f"{config.keep_checkpoints + 2} checkpoints of {checkpoint / 1e6:,.2f} MB, and the exports", ""]
    return "\n".join(lines)


def _time(run: Run) -> tuple[float, float]:
    """(seconds of a step, seconds of an evaluation's image), on all workers together, compiled before.

    The first is 0 if the run has no step left to time.
    """
    job, steps, step_seconds = run.job, 1, 0.0
    with run.watchdog.phase("timing steps"):
        while left := job.plan.total_steps - run.step:
            steps = min(steps, left)
            began = time.perf_counter()
            run.inner_loop.run(steps)
            seconds = time.perf_counter() - began
            step_seconds = seconds / steps
            if collectives.broadcast(job.runtime, int(seconds > _TIMED_SECONDS)):  # the chief's clock decides for all
                break
            steps *= 4
        began = time.perf_counter()
        run.evaluator.run()
        return step_seconds, (time.perf_counter() - began) / job.data.evaluated.size


def _duration(seconds: float) -> str:
    """Such as 3.2 s, 12 min or 4 h 5 min."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"


def _size(path: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
