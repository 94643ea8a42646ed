"""Writes the trained model as model.h5, model.keras and saved_model/, and measures each.

All are float32, whatever the model trained in. Each is loaded again in a process of its own that
knows nothing of this package, and run over the test split: an export counts with the accuracy that it
has, not with the one that it should have.
"""

import shutil
from pathlib import Path

import absl.logging

from trainer import models
from trainer.errors import StorageError
from trainer.export.measure import Measurement
from trainer.export.serving import Serving
from trainer.process.tf_import import tf
from trainer.storage import durable
from trainer.storage.manifest import seal

PATHS = {"h5": "model.h5", "keras": "model.keras", "saved_model": "saved_model/1"}
TOLERANCE = 0.001  # a tenth of a point
_BESIDES = 2**19  # bytes of an export that aren't weights, about


def float32_copy(config, classes, image_shape, model):
    """A float32 model with the weights of another: `model` itself may compute in another precision."""
    copy = models.build(config.model, classes, image_shape)
    copy.set_weights(model.get_weights())
    return copy


def export(job, model, accuracy, *, folder, between_pieces=None):
    """Exports a model in the formats of `--export`.

    Args:
        job: The `Job`.
        model: The trained `keras.Model`.
        accuracy: What training's own evaluation reached on the test split, or None. It is compared with the exports'
            where it was computed in float32 on a CPU; GPUs and lower precisions answer a few images differently,
            and there the float32 copy is measured instead.
        folder: The run's `export/`; put in place whole.
        between_pieces: Called between pieces of work; tells that there is progress, and may raise what ends it.

    Returns:
        Format to a dict: path (relative to the model_dir), accuracy, examples, bytes.

    Raises:
        StorageError: if an export can't be loaded, or is not as good as what was exported.
    """
    config, data, runtime, folder = job.config, job.data, job.runtime, Path(folder)
    staged = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    exported = float32_copy(config, len(data.classes), data.image_shape, model)
    weights = sum(4 * variable.shape.num_elements() for variable in model.weights)
    durable.require_room(folder, len(config.export) * int(1.1 * weights + _BESIDES), "the exports")
    staged.mkdir(parents=True)
    measurement = Measurement(data.test, runtime.devices[0], runtime.kind, between_pieces or _nothing)
    if accuracy is None or runtime.precision != "float32" or not runtime.kind.exact_float32:
        accuracy = measurement.accuracy(exported)
    try:
        for name in config.export:
            measurement.between_pieces()
            _write(name, exported, data.classes, staged / PATHS[name])
        measured = measurement.of_exports({name: staged / PATHS[name] for name in config.export})
        _check(measured, accuracy)
        result = {name: {"path": f"{folder.name}/{PATHS[name]}", **measured[name],
                         "bytes": _size(staged / PATHS[name])} for name in config.export}
        seal(staged, {"classes": list(data.classes), "image_shape": list(data.image_shape), "exports": result})
        durable.replace_folder(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return result


def _nothing():
    pass


def _write(name, model, classes, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "saved_model":
        serving = Serving(model, classes)
        tf.saved_model.save(serving, str(path), signatures=serving.signatures())
        return
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)  # Keras finds .h5 old-fashioned; users ask for it all the same
    try:
        model.save(path)
    finally:
        absl.logging.set_verbosity(verbosity)


def _check(measured, accuracy):
    """Fails if an export differs by more than a tenth of a point, or by more than one example of a small split."""
    wrong = [f"{name} {found['accuracy']:.4%}" for name, found in measured.items()
             if abs(found["accuracy"] - accuracy) > max(TOLERANCE, 1 / found["examples"]) + 1e-9]
    if wrong:
        raise StorageError(f"exports differ from the model's test accuracy of {accuracy:.4%}: {', '.join(wrong)}",
                           "don't use them; the checkpoints hold the model. This should not happen: please report it")


def _size(path):
    return sum(inner.stat().st_size for inner in [path, *path.rglob("*")] if inner.is_file())
