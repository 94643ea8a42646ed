"""OpenVINO: a model for Intel's processors; needs the extra `openvino`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.process.imports import left_out
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras

MODEL = "model.xml"  # beside model.bin, which holds the weights


def write_openvino(model: keras.Model, path: Path) -> None:
    """Writes a folder with model.xml and model.bin: pixels from 0 to 255 in, float32 [n, height, width, channels];
    logits out, float32.

    Keras's own `model.export` needs SciPy for this; OpenVINO reads a SavedModel by itself.

    Args:
        model: A float32 model from pixels to logits.
        path: The folder.
    """
    with left_out("openvino_telemetry"):  # which would tell Intel of each import
        import openvino  # pyright: ignore[reportMissingImports]  an extra

    def logits(pixels: tf.Tensor) -> dict[str, Any]:
        return {"logits": model(pixels, training=False)}

    pixels = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="pixels")
    holder: Any = tf.Module()
    holder.kept = [variable.value for variable in model.variables]  # a tracked Keras model would be stored, too
    holder.logits = tf.function(logits, autograph=False).get_concrete_function(pixels)
    with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
        tf.saved_model.save(holder, scratch, signatures=holder.logits)
        path.mkdir()
        openvino.save_model(openvino.Core().read_model(scratch), path / MODEL, compress_to_fp16=False)
