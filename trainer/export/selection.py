"""Which weights a run ends with, the last or the best, and how good they are."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from trainer.errors import DataError, StorageError, UsageError
from trainer.export.exporter import float32_copy
from trainer.quality.calibration import fit_temperature
from trainer.quality.predictions import Predictions
from trainer.train.state import evaluated_variables

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from trainer.checkpoint.manager import CheckpointManager
    from trainer.config import Config
    from trainer.data.dataset import Dataset
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


def predictions_of(selection: Selection, job: Job, measurement: Measurement, kept: Path,
                   split_name: str) -> Predictions:
    """What the selected weights say of each example of a split.

    The run's own evaluation says it if it was of that split and these weights, in float32 on a CPU: `kept` holds it
    then. GPUs and lower precisions answer a few images differently, so there the examples are answered again.

    Args:
        selection: The weights.
        job: What the run trained.
        measurement: Answers the examples again, where that is needed.
        kept: The file that has the run's own predictions on the split; where it must be written anew, it is.
        split_name: The split's name.
    """
    if job.runtime.precision == "float32" and job.runtime.kind.exact_float32:
        with contextlib.suppress(DataError):  # an older version wrote no such file
            before = Predictions.read(kept)
            if (before.split, before.step, before.classes) == (split_name, selection.step, job.data.classes):
                return before
    predictions = measurement.predictions(selection.model, selection.step, split_name)
    predictions.write(kept)
    return predictions


def temperature_of(validation: Predictions) -> float | None:
    """The temperature that calibrates predictions on the validation split; None if there are no probabilities."""
    return (None if validation.probabilities is None else
            fit_temperature(validation.probabilities, validation.labels))


def require_calibration_data(config: Config, data: Dataset) -> None:
    """Makes sure that there is something to fit the temperature of `--calibrate_export` on.

    Raises:
        UsageError: if there is no validation split.
    """
    if config.calibrate_export and data.validation is None:
        raise UsageError("--calibrate_export fits a temperature on the validation split; this data has none, and the "
                         "test split is for measuring", "--validation_fraction=0.1, or leave --calibrate_export out")


def accuracy_of(selection: Selection, job: Job, predictions: Predictions) -> float:
    """The accuracy of the selected weights on the split that is measured.

    Args:
        selection: The weights.
        job: What the run trained.
        predictions: What they say of the split's examples.
    """
    exact = job.runtime.precision == "float32" and job.runtime.kind.exact_float32
    if predictions.split == job.data.evaluated_name and (exact or not job.config.formats):
        return selection.evaluated_accuracy
    return predictions.accuracy
