"""Writes the trained model as model.h5, model.keras and saved_model/, and measures each.

All exports are float32, whatever precision the model trained in. Each export is loaded again in a process of its own
that doesn't import this package, and run over the test split (without one, over the validation split): the accuracy of
an export is measured, not assumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import absl.logging
import keras
import numpy as np

from trainer import models
from trainer.data.augment.preview import take_images
from trainer.errors import StorageError, translate
from trainer.export.card.model_card import ModelCard
from trainer.export.folder import ExportFolder, write_labels
from trainer.export.formats.litert import CALIBRATION_IMAGES, write_litert
from trainer.export.formats.onnx import write_onnx
from trainer.export.formats.openvino import write_openvino
from trainer.export.measure import Measurement
from trainer.export.serving import Serving
from trainer.process.tf_import import tf
from trainer.storage import durable
from trainer.storage.manifest import seal

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.plan import Job

TOLERANCE = 0.001  # a tenth of a point, or of a probability
# Format to what its accuracy and its probabilities may differ by, where that is more: rounded weights, or all rounded.
_TOLERANCES = {"litert_float16": (TOLERANCE, 0.02), "litert_int8": (0.01, 0.3)}
_OTHER_WRITERS = {"onnx": write_onnx, "openvino": write_openvino}
_OVERHEAD_BYTES = 2**19  # about what an export holds in addition to its weights


def float32_copy(config: Config, classes: int, image_shape: tuple[int, int, int], model: keras.Model) -> keras.Model:
    """A float32 model with the weights of another: `model` itself may compute in another precision.

    Args:
        config: Its `model` is built.
        classes: Number of classes.
        image_shape: (height, width, channels).
        model: The model whose weights are copied.
    """
    copy = models.build(config.model, classes, image_shape, drop_path=config.drop_path)
    copy.set_weights(model.get_weights())
    return copy


class Exports(NamedTuple):
    """What became of the formats of `--export`.

    Args:
        results: Format to a dict: path (relative to the model_dir), bytes, and what was measured (`Measured.answers`).
        failures: Format to why it isn't there, in words that go on after the format's name.
    """

    results: dict[str, dict[str, Any]]
    failures: dict[str, str]

    def require_all(self) -> None:
        """Makes sure that no format failed.

        Raises:
            StorageError: naming those that did, and why.
        """
        if self.failures:
            raise StorageError("\n  ".join(f"the {name} export {why}" for name, why in self.failures.items()), (
                f"--export={','.join(self.results)} leaves out what failed, and can be used already; the checkpoints "
                "hold the model" if self.results else
                "change the model so that Keras finds every layer again in the file; the checkpoints hold it"))


def calibrated(model: keras.Model, temperature: float) -> keras.Model:
    """The model with its logits divided by a temperature, by a layer of Keras's own."""
    return keras.Model(model.inputs, keras.layers.Rescaling(1 / temperature, name="temperature")(model.outputs[0]))


def export(job: Job, model: keras.Model, measurement: Measurement, accuracy: float | None, *,
           folder: Path | str, step: int, temperature: float | None = None, keeps: bool = False,
           card: ModelCard | None = None) -> Exports:
    """Exports a model in the formats of `--export`.

    Args:
        job: What the run trained.
        model: The trained model, in float32.
        measurement: Measures the exports.
        accuracy: The model's accuracy on the measurement's split; the exports are compared with it. None if the
            measurement is a `Comparison`, which knows the model's answers.
        folder: The run's `export/`; replaced in one step by the formats that didn't fail, if there are any.
        step: The step of the weights.
        temperature: What the exported logits are divided by; None for the model's own logits.
        keeps: Whether formats that aren't exported now stay as they are.
        card: What MODEL_CARD.md says beside the formats; None for no such file.

    Returns:
        The formats' results and failures: a format fails if it can't be written or loaded, or if its accuracy or its
        answers differ from the model's.
    """
    formats, data, folder = job.config.formats, job.data, Path(folder)
    model = model if temperature is None else calibrated(model, temperature)
    earlier = ExportFolder(folder, {"step": step, "temperature": temperature, "sha256": _digest(model)},
                           list(data.classes), keeps)
    paths = earlier.paths()
    staged = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    weights = sum(4 * variable.shape.num_elements() for variable in model.weights)
    durable.require_room(folder, len(formats) * int(1.1 * weights + _OVERHEAD_BYTES), "the exports")
    staged.mkdir(parents=True)

    def sample() -> np.ndarray:
        return take_images(data.train, np.arange(min(CALIBRATION_IMAGES, data.train.size)))

    try:
        failures: dict[str, str] = {}
        with measurement.starting(formats) as processes:
            for name in formats:
                measurement.between_pieces()
                if failure := write(name, model, staged / paths[name], data.classes, job.config.resize, sample):
                    failures[name] = failure
            written = {name: staged / paths[name] for name in formats if name not in failures}
            measured = measurement.of_exports(written, processes)
        failures |= measured.failures | differences(measured.answers, accuracy, measurement.split_name)
        results = {name: {"path": f"{folder.name}/{paths[name]}", **measured.answers[name],
                          "bytes": _size(staged / paths[name])} for name in formats if name not in failures}
        for name in failures:
            _remove(staged / paths[name])
        if results:
            entries = {name: earlier.entry(result) for name, result in results.items()}
            entries |= earlier.keep(staged, formats)
            write_labels(staged, data.classes)
            if card:
                card.write(staged, entries, temperature)
            seal(staged, {"classes": list(data.classes), "image_shape": list(data.image_shape), "exports": entries,
                          "temperature": temperature})
            durable.replace_folder(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Exports(results, failures)


def write(name: str, model: keras.Model, path: Path, classes: Sequence[str], resize: str,
          images: Callable[[], np.ndarray]) -> str | None:
    """Writes an export.

    Args:
        name: The format.
        model: The model, in float32.
        path: Where it goes.
        classes: The names of the classes.
        resize: As in `--resize`.
        images: As in `write_litert`.

    Returns:
        Why this format can't hold the model, in words that go on after the format's name; None if it was written.

    Raises:
        OSError, LockstepError: if the disk is the reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)  # Keras warns that .h5 is a legacy format; the user asked for it
    try:
        if name == "saved_model":
            serving = Serving(model, classes, resize)
            tf.saved_model.save(serving, str(path), signatures=serving.signatures())
        elif name.startswith("litert"):
            write_litert(name, model, path, images)
        elif name in _OTHER_WRITERS:
            _OTHER_WRITERS[name](model, path)
        else:
            model.save(path)
    except Exception as error:
        if translate(error) and not (isinstance(error, OSError) and not error.errno):  # HDF5's own have no errno
            raise
        return f"can't be written: {type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"
    finally:
        absl.logging.set_verbosity(verbosity)
    return None


def differences(measured: Mapping[str, Mapping[str, Any]], accuracy: float | None, split_name: str) -> dict[str, str]:
    """The exports that are not the model.

    Args:
        measured: Format to what an export answered.
        accuracy: The model's accuracy; None if the answers were compared with the model's own.
        split_name: The split that it is of.

    Returns:
        Format to how it differs, of those whose accuracy differs by more than a tenth of a point, and by more than one
        example of a small split; whose probabilities differ; or that see files otherwise than their pixels.
    """
    wrong = {}
    for name, entry in measured.items():
        points, probability = _TOLERANCES.get(name, (TOLERANCE, TOLERANCE))
        if accuracy is not None and abs(entry["accuracy"] - accuracy) > max(points, 1 / entry["examples"]) + 1e-9:
            wrong[name] = (f"is not the model: its {split_name} accuracy is {entry['accuracy']:.4%}, the model's "
                           f"{accuracy:.4%}")
        elif not entry.get("largest_difference", 0) <= probability:  # also if it isn't a number
            wrong[name] = (f"is not the model: its probabilities differ from the model's by "
                           f"{entry['largest_difference']:.2g}")
        elif entry.get("file_differences", 0) > max(1, TOLERANCE * entry.get("file_examples", 0)):
            wrong[name] = (f"says another class of {entry['file_differences']:,} of {entry['file_examples']:,} files "
                           "than of their pixels")
    return wrong


def _digest(model: keras.Model) -> str:
    """The SHA-256 of a model's weights: another run in the same folder may export the same step."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Removes a file or folder, and its parent if that is empty then."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def _size(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    return sum(inner.stat().st_size for inner in [path, *path.rglob("*")] if inner.is_file())
