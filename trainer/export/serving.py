"""The signatures of a SavedModel, and how they convert an image to the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.data.images.crops import View
from trainer.export.served_files import FileDecoder
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras


class Serving(tf.Module):
    """What TensorFlow Serving calls: images in, probabilities, classes and class names out.

    Args:
        model: A float32 model from pixels to logits.
        classes: Names, in the order of the logits.
        resize: `--resize`: how files become the model's images.

    Attributes:
        serve: The function of pixels, uint8 [n, height, width, channels], under the name that Keras's `model.export`
            gives it. `keras.layers.TFSMLayer` looks for it, and LiteRT's converter: where it is there, the converter
            takes serving_default alone of several signatures. serve_bytes has operations that LiteRT hasn't.
    """

    def __init__(self, model: keras.Model, classes: Sequence[str], resize: str) -> None:
        super().__init__()
        self._shape = height, width, channels = model.input_shape[1:]
        self._files = FileDecoder(View(height, width, channels, resize))
        # The variables alone: a tracked Keras model would be stored with all weights twice.
        self._variables = [variable.value for variable in model.variables]
        self._call = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False), autograph=False)
        self._names = tf.constant(classes)
        images = tf.TensorSpec([None, *self._shape], tf.uint8, name="images")
        self.serve = tf.function(self._classify, input_signature=[images], autograph=False)

    def signatures(self) -> dict[str, Any]:
        """The signatures, by name.

        serving_default takes uint8 images; serve_bytes takes JPEG, PNG, BMP and GIF files, as served_files.py reads
        them, and is there if files can be the model's images.
        """
        signatures = {"serving_default": self.of_pixels()}
        if self._shape[-1] in (1, 3):
            encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
            of_files = tf.function(self._classify_bytes, autograph=False)
            signatures["serve_bytes"] = of_files.get_concrete_function(encoded)
        return signatures

    def of_pixels(self) -> Any:
        """The signature that takes uint8 images [n, height, width, channels]."""
        return self.serve.get_concrete_function()

    def _classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(self._call(images))
        best = tf.argmax(probabilities, -1)
        return {"probabilities": probabilities, "class": best, "class_name": tf.gather(self._names, best)}

    def _classify_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._classify(tf.map_fn(self._files.decode, image_bytes, fn_output_signature=tf.uint8))
