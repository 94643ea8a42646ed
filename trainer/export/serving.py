"""The signatures of a SavedModel, and how they convert an image to the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.data.images.crops import LARGE
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras


class Serving(tf.Module):
    """What TensorFlow Serving calls: images in, probabilities, classes and class names out.

    Args:
        model: A float32 model from pixels to logits.
        classes: Names, in the order of the logits.
    """

    def __init__(self, model: keras.Model, classes: Sequence[str]) -> None:
        super().__init__()
        self._shape = model.input_shape[1:]
        # The variables alone: a tracked Keras model would be stored with all weights twice.
        self._variables = [variable.value for variable in model.variables]
        self._call = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False))
        self._names = tf.constant(classes)

    def signatures(self) -> dict[str, Any]:
        """The signatures, by name: serving_default (uint8 images) and serve_bytes (JPEG or PNG files)."""
        images = tf.TensorSpec([None, *self._shape], tf.uint8, name="images")
        encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
        return {"serving_default": tf.function(self._classify).get_concrete_function(images),
                "serve_bytes": tf.function(self._classify_bytes).get_concrete_function(encoded)}

    def _classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(self._call(images))
        best = tf.argmax(probabilities, -1)
        return {"probabilities": probabilities, "class": best, "class_name": tf.gather(self._names, best)}

    def _classify_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        height, width, channels = self._shape

        def decode(data: tf.Tensor) -> tf.Tensor:
            image = tf.io.decode_image(data, channels=channels, expand_animations=False)
            image.set_shape([None, None, channels])
            return view(image, height, width)

        return self._classify(tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8))


def view(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The part of an image that evaluation sees (`crops.central_boxes`), in the model's size.

    Args:
        image: uint8 [h, w, c].
        height, width: The model's input size in pixels. A square model sees the central square of the image, other
            models see the whole image.

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


def resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resizes an image to the model's input size; an image of that size stays the same, to the last bit.

    Args:
        image: uint8 [h, w, c].
        height, width: The model's input size in pixels.

    Returns:
        uint8 [height, width, c], bilinear with anti-aliasing.
    """
    resized = tf.image.resize(image, [height, width], antialias=True)
    return tf.saturate_cast(tf.round(tf.ensure_shape(resized, [height, width, image.shape[-1]])), tf.uint8)
