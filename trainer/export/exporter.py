"""Writes the trained model as model.h5, model.keras and saved_model/, and measures each.

All exports are float32, whatever precision the model trained in. Each export is loaded again in a process of its own
that doesn't import this package, and run over the test split (without one, over the validation split): the accuracy of
an export is measured, not assumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import absl.logging

from trainer import models
from trainer.errors import StorageError
from trainer.export.measure import Measurement
from trainer.export.serving import Serving
from trainer.process.tf_import import tf
from trainer.storage import durable
from trainer.storage.manifest import seal

if TYPE_CHECKING:
    import keras

    from trainer.config import Config
    from trainer.plan import Job

PATHS = {"h5": "model.h5", "keras": "model.keras", "saved_model": "saved_model/1"}
TOLERANCE = 0.001  # a tenth of a point
_OVERHEAD_BYTES = 2**19  # about what an export holds in addition to its weights


def float32_copy(config: Config, classes: int, image_shape: tuple[int, int, int], model: keras.Model) -> keras.Model:
    """A float32 model with the weights of another: `model` itself may compute in another precision.

    Args:
        config: Its `model` is built.
        classes: Number of classes.
        image_shape: (height, width, channels).
        model: The model whose weights are copied.
    """
    copy = models.build(config.model, classes, image_shape)
    copy.set_weights(model.get_weights())
    return copy


def export(job: Job, model: keras.Model, measurement: Measurement, accuracy: float, *,
           folder: Path | str) -> dict[str, dict[str, Any]]:
    """Exports a model in the formats of `--export`.

    Args:
        job: What the run trained.
        model: The trained model, in float32.
        measurement: Measures the exports.
        accuracy: The model's accuracy on the measurement's split; the exports are compared with it.
        folder: The run's `export/`; replaced in one step.

    Returns:
        Format to a dict: path (relative to the model_dir), what `Measurement.of_exports` returns, bytes.

    Raises:
        StorageError: if an export can't be loaded, or its accuracy differs from the model's.
    """
    config, data, folder = job.config, job.data, Path(folder)
    staged = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    weights = sum(4 * variable.shape.num_elements() for variable in model.weights)
    durable.require_room(folder, len(config.export) * int(1.1 * weights + _OVERHEAD_BYTES), "the exports")
    staged.mkdir(parents=True)
    try:
        with measurement.starting(config.export) as processes:
            for name in config.export:
                measurement.between_pieces()
                _write(name, model, staged / PATHS[name], data.classes, config.resize)
            measured = measurement.of_exports({name: staged / PATHS[name] for name in config.export}, processes)
        _check(measured, accuracy, measurement.split_name)
        result = {name: {"path": f"{folder.name}/{PATHS[name]}", **measured[name],
                         "bytes": _size(staged / PATHS[name])} for name in config.export}
        seal(staged, {"classes": list(data.classes), "image_shape": list(data.image_shape), "exports": result})
        durable.replace_folder(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return result


def _write(name: str, model: keras.Model, path: Path, classes: Sequence[str], resize: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "saved_model":
        serving = Serving(model, classes, resize)
        tf.saved_model.save(serving, str(path), signatures=serving.signatures())
        return
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)  # Keras warns that .h5 is a legacy format; the user asked for it
    try:
        model.save(path)
    finally:
        absl.logging.set_verbosity(verbosity)


def _check(measured: Mapping[str, Mapping[str, Any]], accuracy: float, split_name: str) -> None:
    """Fails if an export differs by more than a tenth of a point, or by more than one example of a small split."""
    for name, entry in measured.items():
        if entry.get("file_differences", 0) > max(1, TOLERANCE * entry.get("file_examples", 0)):
            raise StorageError(f"{name} says another class of {entry['file_differences']:,} of "
                               f"{entry['file_examples']:,} files than of their pixels",
                               "don't use it; the checkpoints hold the model. This should not happen: please report it")
    wrong = [f"{name} {entry['accuracy']:.4%}" for name, entry in measured.items()
             if abs(entry["accuracy"] - accuracy) > max(TOLERANCE, 1 / entry["examples"]) + 1e-9]
    if wrong:
        raise StorageError(f"exports differ from the model's {split_name} accuracy of {accuracy:.4%}: "
                           f"{', '.join(wrong)}",
                           "don't use them; the checkpoints hold the model. This should not happen: please report it")


def _size(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    return sum(inner.stat().st_size for inner in [path, *path.rglob("*")] if inner.is_file())
