"""Which weights a run ends with, the last or the best, and how good they are."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from trainer.errors import DataError, StorageError
from trainer.export.exporter import float32_copy
from trainer.train.state import evaluated_variables

if TYPE_CHECKING:
    import keras

    from trainer.checkpoint.manager import CheckpointManager
    from trainer.export.measure import Measurement
    from trainer.plan import Job
    from trainer.train.metrics import RunMetrics


@dataclasses.dataclass(frozen=True)
class Selection:
    """The weights that a run ends with.

    Args:
        model: A float32 model that has them.
        step: The step that they are of.
        evaluated_accuracy: Their accuracy in the run's own evaluation.
    """

    model: keras.Model
    step: int
    evaluated_accuracy: float


def select(job: Job, model: keras.Model, metrics: RunMetrics, checkpoints: CheckpointManager) -> Selection:
    """The last weights or the best, as `--export_checkpoint` wants them.

    Args:
        job: What the run trained.
        model: The model that the run evaluates, with the last weights.
        metrics: The metrics at the end, after at least one evaluation.
        checkpoints: The run's, with all saves finished.

    Raises:
        StorageError: if the best are wanted, and their checkpoint is gone or damaged.
    """
    assert metrics.evaluation is not None  # every run ends with an evaluation
    copy = float32_copy(job.config, len(job.data.classes), job.data.image_shape, model)
    if not job.exports_best:
        return Selection(copy, metrics.evaluation["step"], metrics.evaluation["accuracy"])
    try:
        manifest = checkpoints.restore_best(evaluated_variables(copy, job.config))
    except (DataError, StorageError) as error:
        raise StorageError(f"the weights that were chosen can't be exported: {error.cause}",
                           "--export_checkpoint=last exports the last ones; run the same command with it") from None
    return Selection(copy, manifest["step"], manifest["evaluation"]["accuracy"])


def selected_on(job: Job) -> str | None:
    """The split whose accuracy decided what is exported or when the run ended; None if none did."""
    chosen = job.exports_best or job.config.patience or job.config.target_accuracy
    return job.data.evaluated_name if chosen else None


def accuracy_of(selection: Selection, job: Job, measurement: Measurement) -> float:
    """The accuracy of the selected weights on the measurement's split.

    The run's own evaluation says it if it was of that split, in float32 on a CPU; GPUs and lower precisions answer a
    few images differently.
    """
    exact = job.runtime.precision == "float32" and job.runtime.kind.exact_float32
    if measurement.split is job.data.evaluated and (exact or not job.config.formats):
        return selection.evaluated_accuracy
    return measurement.accuracy(selection.model)
