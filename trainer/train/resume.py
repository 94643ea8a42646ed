"""How a run comes back: the newest sound checkpoint, into the state, on all workers alike."""

import dataclasses
import time

from trainer.distributed import collectives
from trainer.distributed.devices import record
from trainer.errors import DataError, StorageError
from trainer.storage import bit_versions
from trainer.train.metrics import RunMetrics

_SEEN_SECONDS = 90.0


@dataclasses.dataclass(frozen=True)
class Resumed:
    """Where a start begins.

    Args:
        metrics: The `RunMetrics` of the run so far.
        report_sizes: How far the reports are valid, as `Reporter.flush` returned it; None for a new run.
    """

    metrics: RunMetrics
    report_sizes: dict | None


def resume(job, state, checkpoints, *, model_dir, console):
    """Restores the newest sound checkpoint, if there is one; all workers restore the same.

    Args:
        job: The `Job`.
        state: The `TrainState`; it is restored.
        checkpoints: The run's `Checkpoints`.
        model_dir: The run's `ModelDir`.
        console: The `Console`.

    Returns:
        A `Resumed`.

    Raises:
        DataError: if the data is not what it was.
        StorageError: if all checkpoints are damaged.
        UsageError: if they are of another model.
    """
    manifest, runtime = None, job.runtime
    with collectives.all_or_none(runtime):
        if runtime.is_chief:
            manifest = checkpoints.newest_sound(console.warn)
    # The chief chooses: another worker may see the shared folder a moment later. -1 for none.
    step = collectives.broadcast(runtime, manifest["step"] if manifest else -1)
    if step < 0:
        return Resumed(RunMetrics(), None)
    with collectives.all_or_none(runtime):
        manifest = manifest or _find_soon(checkpoints, step)
        resumed = _restore(manifest, job, state, checkpoints, model_dir)
        if runtime.is_chief:
            _warn_of_differences(manifest, runtime, console)
        console.say(f"resuming from step {step:,}")
    return resumed


def _restore(manifest, job, state, checkpoints, model_dir):
    resumed, fingerprint, precision = _read(manifest)
    state.bit_versions = bit_versions.of_manifest(manifest)
    job.data.require_same(fingerprint, model_dir.data_parts())
    checkpoints.restore_all(state.variables(), manifest)
    if precision != job.runtime.precision:
        state.reset_loss_scale(job.runtime.precision)
    return resumed


def _read(manifest):
    """(the `Resumed`, fingerprint of the data, precision) that a manifest holds."""
    try:
        reports = manifest["reports"]
        sizes = {name: int(reports[name]) for name in ("metrics", "ledger")}
        events = {str(name): int(size) for name, size in reports["tensorboard"].items()}
        resumed = Resumed(RunMetrics.from_json(manifest["progress"]), {**sizes, "tensorboard": events})
        return resumed, str(manifest["data"]), str(manifest["precision"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"the manifest of step {manifest['step']:,} is not of this version's making "
                           f"({type(error).__name__}: {error})",
                           "go on with the version that wrote it, or start anew with another --model_dir") from None


def _warn_of_differences(manifest, runtime, console):
    """Says where this start computes on something else than the one before, as far as both can tell."""
    before = manifest.get("computed_on")
    changed = record.differences(before, runtime.record()) if isinstance(before, dict) else []
    if changed:
        console.warn(f"resuming with the same examples and draws, but not to the last bit: {'; '.join(changed)}")


def _find_soon(checkpoints, step):
    """Finds the chief's checkpoint; network file systems may show another machine's files a minute late."""
    deadline = time.monotonic() + _SEEN_SECONDS
    while True:
        try:
            return checkpoints.find(str(step))
        except DataError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
