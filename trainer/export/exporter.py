"""Writes the trained model as model.h5, model.keras and saved_model/, and measures each.

All are float32, whatever the model trained in. Each is loaded again in a process of its own that
knows nothing of this package, and run over the test split: an export counts with the accuracy that it
has, not with the one that it should have.
"""

import shutil
from pathlib import Path

import absl.logging
import tensorflow as tf

from trainer import models
from trainer.data.images.crops import LARGE
from trainer.device_kind import CPU
from trainer.errors import StorageError
from trainer.export.measure import Measurement
from trainer.storage import durable

PATHS = {"h5": "model.h5", "keras": "model.keras", "saved_model": "saved_model/1"}
TOLERANCE = 0.001  # a tenth of a point
_BESIDES = 2**19  # bytes of an export that aren't weights, about


class Serving(tf.Module):
    """What TensorFlow Serving calls: pictures in, probabilities, classes and class names out.

    Args:
        model: A float32 `keras.Model` from pixels to logits.
        classes: Names, in the order of the logits.
    """

    def __init__(self, model, classes):
        super().__init__()
        self._shape = model.input_shape[1:]
        # The variables alone: a tracked Keras model would be stored with all weights twice.
        self._variables = [variable.value for variable in model.variables]
        self._call = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False))
        self._names = tf.constant(classes)

    def signatures(self):
        """The signatures, by name: serving_default (uint8 pictures) and serve_bytes (JPEG or PNG files)."""
        pictures = tf.TensorSpec([None, *self._shape], tf.uint8, name="images")
        encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
        return {"serving_default": tf.function(self._classify).get_concrete_function(pictures),
                "serve_bytes": tf.function(self._classify_bytes).get_concrete_function(encoded)}

    def _classify(self, images):
        probabilities = tf.nn.softmax(self._call(images))
        best = tf.argmax(probabilities, -1)
        return {"probabilities": probabilities, "class": best, "class_name": tf.gather(self._names, best)}

    def _classify_bytes(self, image_bytes):
        height, width, channels = self._shape

        def decode(data):
            image = tf.io.decode_image(data, channels=channels, expand_animations=False)
            image.set_shape([None, None, channels])
            return view(image, height, width)

        return self._classify(tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8))


def view(image, height, width):
    """The part of a picture that evaluation sees (`data.views.central_boxes`), in the model's size.

    Args:
        image: uint8 [h, w, c].
        height, width: What the model takes. Only squares are cut out; other models see all of a picture.

    Returns:
        uint8 [height, width, c].
    """
    if height == width:
        shape = tf.shape(image)
        shorter = tf.minimum(shape[0], shape[1])
        if height > LARGE:
            part = tf.cast(tf.round(tf.cast(shorter, tf.float32) * 7 / 8), tf.int32)
            shorter = tf.where(tf.reduce_all(shape[:2] == height), shorter, tf.maximum(1, part))
        top, left = (shape[0] - shorter) // 2, (shape[1] - shorter) // 2
        image = image[top:top + shorter, left:left + shorter]
    return resize(image, height, width)


def resize(image, height, width):
    """Brings a picture to the model's size; one that has it already stays as it is, to the last bit.

    Args:
        image: uint8 [h, w, c].
        height, width: What the model takes.

    Returns:
        uint8 [height, width, c], bilinear with anti-aliasing.
    """
    resized = tf.image.resize(image, [height, width], antialias=True)
    return tf.saturate_cast(tf.round(tf.ensure_shape(resized, [height, width, image.shape[-1]])), tf.uint8)


def float32_copy(config, classes, image_shape, model):
    """A float32 model with the weights of another: `model` itself may compute in another precision."""
    copy = models.build(config.model, classes, image_shape)
    copy.set_weights(model.get_weights())
    return copy


def export(config, data, model, accuracy, folder, device="/device:CPU:0", kind=CPU, heed=lambda: None):
    """Exports a model in the formats of `--export`.

    Args:
        config: The run's `Config`.
        data: The `Dataset`.
        model: The trained `keras.Model`.
        accuracy: What it reached on the test split in float32; None if that isn't known.
        folder: The run's `export/`; put in place whole.
        device, kind: Name and `DeviceKind` of the device that exports are measured on.
        heed: Called between pieces of work; tells that there is progress, and may raise what ends it.

    Returns:
        Format to a dict: path (relative to the model_dir), accuracy, examples, bytes.

    Raises:
        StorageError: if an export can't be loaded, or is not as good as what was exported.
    """
    folder = Path(folder)
    staged = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    exported = float32_copy(config, len(data.classes), data.image_shape, model)
    weights = sum(4 * variable.shape.num_elements() for variable in model.weights)
    durable.require_room(folder, len(config.export) * int(1.1 * weights + _BESIDES), "the exports")
    staged.mkdir(parents=True)
    measurement = Measurement(data.test, device, kind, heed)
    if accuracy is None:
        accuracy = measurement.accuracy(exported)
    try:
        for name in config.export:
            heed()
            _write(name, exported, data.classes, staged / PATHS[name])
        measured = measurement.of_exports({name: staged / PATHS[name] for name in config.export})
        _check(measured, accuracy)
        result = {name: {"path": f"{folder.name}/{PATHS[name]}", **measured[name],
                         "bytes": _size(staged / PATHS[name])} for name in config.export}
        durable.seal(staged, {"classes": list(data.classes), "image_shape": list(data.image_shape), "exports": result})
        durable.replace_folder(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return result


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
