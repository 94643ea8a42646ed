"""ONNX: a model for ONNX Runtime and all else that reads the format; needs the extra `onnx`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras


def write_onnx(model: keras.Model, path: Path) -> None:
    """Writes an .onnx file: pixels from 0 to 255 in, float32 [n, height, width, channels]; logits out, float32.

    Keras's own `model.export` calls the same converter, and leaves input and output without a name.

    Args:
        model: A float32 model from pixels to logits.
        path: The file.
    """
    import tf2onnx  # pyright: ignore[reportMissingImports]  an extra

    def logits(pixels: tf.Tensor) -> dict[str, Any]:
        return {"logits": model(pixels, training=False)}

    pixels = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="pixels")
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells each of its steps
    try:
        tf2onnx.convert.from_function(tf.function(logits, autograph=False), [pixels], output_path=str(path))
    finally:
        logger.setLevel(level)
