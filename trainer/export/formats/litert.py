"""LiteRT (TensorFlow Lite): a model for phones and small machines, in float32, with float16 weights, or in int8."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras

CALIBRATION_IMAGES = 256
_CHATTER = re.compile(rb"flatbuffer|fully_quantize: |InitializeLog")


def write_litert(name: str, model: keras.Model, path: Path, images: Callable[[], np.ndarray]) -> None:
    """Writes a .tflite file: pixels from 0 to 255 in, float32 [n, height, width, channels]; logits out, float32.

    Args:
        name: litert; litert_float16, whose weights have half the bytes; or litert_int8, which computes in 8 bits, with
            scales of the activations that are measured on images (Jacob et al. 2018, arXiv:1712.05877).
        model: A float32 model from pixels to logits.
        path: The file.
        images: Returns the images to measure scales on, uint8 [n, height, width, channels]; called for int8 alone.
    """
    def logits(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": model(pixels, training=False)}

    pixels = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="pixels")
    function = tf.function(logits, autograph=False).get_concrete_function(pixels)
    holder: Any = tf.Module()  # the converter looks for the variables here; it doesn't find those of a Keras model
    holder.kept = [variable.value for variable in model.variables]
    converter: Any = tf.lite.TFLiteConverter.from_concrete_functions([function], holder)
    if name != "litert":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "litert_float16":
        converter.target_spec.supported_types = [tf.float16]
    if name == "litert_int8":
        sample = images()
        converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in sample)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    with _quiet():
        content = converter.convert()
    path.write_bytes(content)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Around the converter: leaves out what its native code tells stderr of itself; all else comes after the block."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            file.seek(0)
            os.write(stderr, b"".join(line for line in file if not _CHATTER.search(line)))
            os.close(stderr)
