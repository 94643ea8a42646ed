"""Loads exports in one environment, and holds their answers against the run's own: load.py ENVIRONMENT FOLDER.

FOLDER has export/, images.npy (uint8 [n, h, w, c]), probabilities.npy (float32 [n, classes]) and image.png, the
first image. Prints a line per export; ends with 1 if one answers otherwise.
"""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import numpy as np


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def keras_files(folder, images):
    import keras

    assert keras.config.backend() == "jax" and not importlib.util.find_spec("tensorflow")
    for name in ("model.h5", "model.keras"):
        yield name, softmax(np.asarray(keras.models.load_model(folder / name, compile=False)(images.astype("float32"))))


def saved_model(folder, images):
    import tensorflow as tf

    path = str(folder / "saved_model/1")
    signatures = tf.saved_model.load(path).signatures
    yield "serving_default", signatures["serving_default"](images=tf.constant(images))["probabilities"].numpy()
    file = tf.constant([(folder.parent / "image.png").read_bytes()])
    yield "serve_bytes", signatures["serve_bytes"](image_bytes=file)["probabilities"].numpy()
    content = tf.lite.TFLiteConverter.from_saved_model(path).convert()
    runner = tf.lite.Interpreter(model_content=content).get_signature_runner("serving_default")
    yield "converted to LiteRT", runner(images=images)["probabilities"]


def litert(folder, images):
    from ai_edge_litert.interpreter import Interpreter

    for path in sorted(folder.glob("*.tflite")):
        runner = Interpreter(str(path)).get_signature_runner("serving_default")
        yield path.name, softmax(runner(pixels=images.astype("float32"))["logits"])


def onnx(folder, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    yield "model.onnx", softmax(session.run(["logits"], {"pixels": images.astype("float32")})[0])


def openvino(folder, images):
    sys.modules["openvino_telemetry"] = None  # a test tells nobody of itself
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(folder / "openvino/model.xml", "CPU", exact)
    yield "openvino/model.xml", softmax(model({"pixels": images.astype("float32")})["logits"])


# Environment to (what pip installs, how its exports are loaded). Nothing else is there but what these bring.
ENVIRONMENTS = {"keras": (("keras>=3.15.1,<3.16", "jax"), keras_files),
                "tensorflow": (("tensorflow>=2.21,<2.22", "keras>=3.15.1,<3.16"), saved_model),
                "litert": (("ai-edge-litert",), litert), "onnx": (("onnxruntime",), onnx),
                "openvino": (("openvino",), openvino)}
# Rounded weights and activations answer otherwise by this much, as trainer/export/exporter.py allows it.
TOLERANCES = {"model_float16.tflite": 0.02, "model_int8.tflite": 0.3}


def main():
    """Loads what there is for this environment."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    assert not importlib.util.find_spec("trainer"), "this project is in the environment"
    images, wanted = np.load(folder / "images.npy"), np.load(folder / "probabilities.npy")
    requirements, load = ENVIRONMENTS[name]
    packages = [requirement.split(">")[0] for requirement in requirements]
    print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages))
    for export, answer in load(folder / "export", images):
        difference, allowed = float(np.abs(answer - wanted[:len(answer)]).max()), TOLERANCES.get(export, 1e-4)
        print(f"  {export}: {len(answer)} images, largest difference of a probability {difference:.2g}")
        if not difference <= allowed:
            sys.exit(f"{export} is not the model: {allowed} is allowed")


if __name__ == "__main__":
    main()
