"""How a run resumes: the newest sound checkpoint, into the state, the same on all workers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer import models
from trainer.checkpoint.initial_weights import read_initial_weights
from trainer.data.augment.preview import take_images
from trainer.distributed import collectives
from trainer.distributed.devices import record
from trainer.errors import DataError, StorageError
from trainer.storage import bit_versions
from trainer.train.metrics import RunMetrics
from trainer.train.step.averages import saved_variables

if TYPE_CHECKING:
    from trainer.checkpoint.checkpoints import Checkpoints
    from trainer.distributed.runtime import Runtime
    from trainer.plan import Job
    from trainer.reporting.console import Console
    from trainer.storage.model_dir import ModelDir
    from trainer.train.state import TrainState

_FIRST_IMAGES, _FIRST_PIXELS = 5_000, 2**25  # at most, that first weights follow from
_VISIBLE_SECONDS = 90.0  # until a file that one machine wrote is visible on all


@dataclasses.dataclass(frozen=True)
class Resumed:
    """Where a start begins.

    Args:
        metrics: The metrics of the run so far.
        report_sizes: The sizes up to which the reports are valid, as `Reporter.flush` returned them; None for a new
            run.
        initialized_from: The source of the weights that the run began with, as `InitialWeights` has it; None for random
            ones.
    """

    metrics: RunMetrics
    report_sizes: dict[str, Any] | None
    initialized_from: dict[str, Any] | None = None


def resume(job: Job, state: TrainState, checkpoints: Checkpoints, *, model_dir: ModelDir, console: Console) -> Resumed:
    """Restores the newest sound checkpoint, if there is one; all workers restore the same.

    Args:
        job: What the run trains.
        state: The state that is restored.
        checkpoints: The checkpoints of the run.
        model_dir: The run's folder.
        console: Prints the step and warnings.

    Returns:
        Where this start begins.

    Raises:
        DataError: if the data has changed.
        StorageError: if all checkpoints are damaged.
        UsageError: if the checkpoint is of another model.
    """
    manifest: dict[str, Any] | None = None
    runtime = job.runtime
    with collectives.all_or_none(runtime):
        if runtime.is_chief:
            manifest = checkpoints.newest_sound(console.warn)
    # The chief chooses: another worker may see the shared folder a moment later. -1 stands for no checkpoint.
    step = collectives.broadcast(runtime, manifest["step"] if manifest else -1)
    if step < 0:
        return Resumed(RunMetrics(), None, initialize_weights(job, state, console.say))
    with collectives.all_or_none(runtime):
        manifest = manifest or _find_soon(checkpoints, step)
        resumed = _restore(manifest, job, state, checkpoints, model_dir)
        if runtime.is_chief:
            _warn_of_differences(manifest, runtime, console)
        console.say(f"resuming from step {step:,}")
    return resumed


def initialize_weights(job: Job, state: TrainState, say: Callable[[str], object]) -> dict[str, Any] | None:
    """Sets the weights that `--init_from` names, else those that follow from the data, on all workers the same.

    Args:
        job: What the run trains.
        state: The state of step 0, which gets the weights.
        say: Prints what was read.

    Returns:
        Their source, as `InitialWeights` has it; None without the flag.

    Raises:
        DataError: if there is nothing that can be read.
        UsageError: if the weights are of another model.
    """
    config, data = job.config, job.data
    if not config.init_from:
        _initialize_from_data(job, state)
        return None
    with collectives.all_or_none(job.runtime):
        model = models.build(config.model, len(data.classes), data.image_shape, drop_path=config.drop_path)
        weights = read_initial_weights(config.init_from, model, saved_variables(model), data.classes)
        state.set_weights(weights.values)
    collectives.require_same(job.runtime, {"hash of --init_from": weights.source["sha256"]})
    say(weights.sentence())
    return weights.source


def _initialize_from_data(job: Job, state: TrainState) -> None:
    """Sets the first weights of a network that follow from training images: from some that are spread over all of them.

    Only a new run gets here, and all of its workers get the chief's numbers: another machine's may round otherwise.
    """
    make = models.weights_of_data(job.config.model)
    if make is None:
        return
    values: dict[str, np.ndarray] = {}
    with collectives.all_or_none(job.runtime):
        if job.runtime.is_chief:
            usable = np.flatnonzero(job.data.train.usable)
            height, width, _ = job.data.image_shape
            count = min(_FIRST_IMAGES, _FIRST_PIXELS // (height * width) + 1, len(usable))
            values = make(take_images(job.data.train, usable[np.arange(count) * len(usable) // count]))
    variables = saved_variables(state.model)
    begun: list[np.ndarray | None] = []
    for variable in variables:
        if collectives.broadcast(job.runtime, int(variable.path in values)):
            own = values.get(variable.path, np.zeros(variable.shape, np.float32)).reshape(1, -1)
            begun.append(collectives.sum_floats(job.runtime, own).reshape(variable.shape))
        else:
            begun.append(None)
    state.set_weights(begun)


def _restore(manifest: dict[str, Any], job: Job, state: TrainState, checkpoints: Checkpoints,
             model_dir: ModelDir) -> Resumed:
    resumed, fingerprint, precision = _read(manifest)
    state.bit_versions = bit_versions.of_manifest(manifest)
    bit_versions.require(state.bit_versions, job.data.versions)
    job.data.require_same(fingerprint, model_dir.data_parts())
    checkpoints.restore_all(state.variables(), manifest)
    if precision != job.runtime.precision:
        state.reset_loss_scale(job.runtime.precision)
    return resumed


def _read(manifest: Mapping[str, Any]) -> tuple[Resumed, str, str]:
    """(the `Resumed`, fingerprint of the data, precision) that a manifest holds."""
    try:
        reports = manifest["reports"]
        sizes = {name: int(reports[name]) for name in ("metrics", "ledger")}
        events = {str(name): int(size) for name, size in reports["tensorboard"].items()}
        resumed = Resumed(RunMetrics.from_json(manifest["progress"]), {**sizes, "tensorboard": events},
                          manifest.get("initialized_from"))
        return resumed, str(manifest["data"]), str(manifest["precision"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"the manifest of step {manifest['step']:,} was not written by this version "
                           f"({type(error).__name__}: {error})",
                           "go on with the version that wrote it, or start anew with another --model_dir") from None


def _warn_of_differences(manifest: Mapping[str, Any], runtime: Runtime, console: Console) -> None:
    """Warns if this start computes on something else than the start that wrote the checkpoint."""
    before = manifest.get("computed_on")
    changed = record.differences(before, runtime.record()) if isinstance(before, dict) else []
    if changed:
        console.warn(f"resuming with the same examples and draws, but not to the last bit: {'; '.join(changed)}")


def _find_soon(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """Finds the chief's checkpoint; network file systems may show another machine's files a minute late."""
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while True:
        try:
            return checkpoints.find(str(step))
        except DataError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
