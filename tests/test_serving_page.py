"""docs/serving.md: its requests, made by its commands, decoded as the servers do, answered by the exports of a run.

No server is started. What TensorFlow Serving does with JSON is described in its api_rest.md, what Triton and KServe do
in the open inference protocol, version 2.
"""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from trainer.export.exporter import write
from trainer.export.folder import PATHS

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[1] / "docs/serving.md").read_text()
CLASSES = ("circle", "square", "triangle", "cross", "ring", "star", "crescent", "bar", "chevron", "grün")


def part(title):
    """The text of a section."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], flags=re.M)[0]


def blocks(title, kind):
    """The blocks of code of one kind in a section."""
    return [text for found, text in re.findall(r"^```(\w*)\n(.*?)^```$", part(title), re.M | re.S) if found == kind]


def request_by_command(title, folder, number=0):
    """What a section's command writes into request.json, and the address that it is sent to."""
    text = [block for block in blocks(title, "sh") if "request.json" in block][number]
    command, curl = text.split("\ncurl ")
    command = command.replace("python3 ", f"{sys.executable} ", 1)
    subprocess.run(["sh", "-c", command], cwd=folder, check=True)
    return json.loads((folder / "request.json").read_text()), re.search(r"http://\S+", curl)[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder of exports, an untrained model)."""
    import small_models

    tf.keras.utils.set_random_seed(1)
    folder, model = tmp_path_factory.mktemp("served"), small_models.smooth(len(CLASSES), (32, 32, 3))
    for name in ("saved_model", "onnx"):
        assert write(name, model, folder / PATHS[name], CLASSES, "crop", lambda: np.zeros((1, 32, 32, 3))) is None
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for image, name in zip(images, ("a.png", "b.png"), strict=True):
        Image.fromarray(image).save(folder / name)
    Image.fromarray(images[0]).save(folder / "a.jpg", quality=95)
    return folder, model, images


def value_of(text):
    """A value of TensorFlow Serving's JSON: {"b64": …} is bytes."""
    return base64.b64decode(text["b64"], validate=True) if isinstance(text, dict) and text.keys() == {"b64"} else text


def tensorflow_serving(folder, request):
    """What TensorFlow Serving answers to a request in rows."""
    signature = tf.saved_model.load(str(folder / PATHS["saved_model"])).signatures[
        request.get("signature_name", "serving_default")]
    specs, rows = signature.structured_input_signature[1], request["instances"]
    if isinstance(rows[0], dict) and rows[0].keys() == specs.keys():
        columns = {name: [value_of(row[name]) for row in rows] for name in specs}
    else:  # the only input needs no name
        (name,) = specs
        columns = {name: [value_of(row) for row in rows]}
    tensors = {name: tf.constant(column, specs[name].dtype) for name, column in columns.items()}
    for name, spec in specs.items():
        assert spec.shape.is_compatible_with(tensors[name].shape)
    answer = {name: tensor.numpy() for name, tensor in signature(**tensors).items()}
    plain = {name: [item.decode() if isinstance(item, bytes) else item for item in values.tolist()]
             for name, values in answer.items()}
    return {"predictions": [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]}


def softmax(logits):
    return tf.nn.softmax(logits).numpy()


def forms(rows):
    """Name to type of each row's values."""
    return [{name: type(value[0] if isinstance(value, list) else value) for name, value in row.items()} for row in rows]


def test_tensorflow_serving_takes_files(exported):
    folder, model, images = exported
    request, address = request_by_command("TensorFlow Serving", folder)
    assert address.endswith("/v1/models/classifier:predict")
    answer = tensorflow_serving(folder, json.loads(json.dumps(request)))
    documented = json.loads(blocks("TensorFlow Serving", "json")[0])
    assert forms(answer["predictions"]) == forms(documented["predictions"])
    wanted = softmax(model(images[1:].astype("float32")))[0]
    np.testing.assert_allclose(answer["predictions"][1]["probabilities"], wanted, atol=1e-6)
    for row in answer["predictions"]:
        assert row["class_name"] == CLASSES[row["class"]]
    for row in documented["predictions"]:  # what stands on the page fits together, too
        assert row["class"] == np.argmax(row["probabilities"]) and row["class_name"] == CLASSES[row["class"]]
        assert sum(row["probabilities"]) == pytest.approx(1)


def test_tensorflow_serving_takes_pixels(exported):
    folder, model, images = exported
    documented = json.loads(blocks("TensorFlow Serving", "json")[1])
    assert np.array(documented["instances"]).shape == (1, 2, 2, 3)  # rows, pixels, channels; of a tiny image
    request = {**documented, "instances": images.tolist()}
    answer = tensorflow_serving(folder, request)
    np.testing.assert_allclose([row["probabilities"] for row in answer["predictions"]],
                               softmax(model(images.astype("float32"))), atol=1e-6)
    with pytest.raises(AssertionError):  # an image of another size doesn't fit
        tensorflow_serving(folder, documented)


def test_triton_takes_pixels(exported):
    """By the configuration that stands on the page, whose shapes and names are those of the ONNX file."""
    import onnxruntime

    folder, model, images = exported
    session = onnxruntime.InferenceSession(folder / PATHS["onnx"], providers=["CPUExecutionProvider"])
    config = next(block for block in blocks("Triton", "") if "max_batch_size" in block)
    found = {kind: (name, kind_of, [int(size) for size in dims.split(",")]) for kind, name, kind_of, dims in re.findall(
        r'^(input|output) \[\{ name: "(\w+)", data_type: (\w+), dims: \[([\d, ]+)\]', config, re.M)}
    for kind, ports in (("input", session.get_inputs()), ("output", session.get_outputs())):
        (port,), (name, type_of, dims) = ports, found[kind]
        assert (port.name, port.type, type_of) == (name, "tensor(float)", "TYPE_FP32")
        assert not isinstance(port.shape[0], int) and port.shape[1:] == dims  # any batch
    assert "label_filename" in config and "labels.txt models/classifier/labels.txt" in part("Triton")

    request, address = request_by_command("Triton", folder)
    assert address.endswith("/v2/models/classifier/infer")
    (given,) = request["inputs"]
    assert (given["name"], given["datatype"]) == ("pixels", "FP32") and given["shape"][1:] == found["input"][2]
    array = np.array(given["data"], np.float32).reshape(given["shape"])
    (logits,) = session.run([request["outputs"][0]["name"]], {"pixels": array})
    np.testing.assert_allclose(logits, model(images[:1].astype("float32")), atol=1e-4)
    best = np.argsort(-logits[0])[:request["outputs"][0]["parameters"]["classification"]]
    (output,) = json.loads(blocks("Triton", "json")[0])["outputs"]
    assert output["shape"] == [1, len(best)] == [1, len(output["data"])]
    for line in output["data"]:  # value:index:label
        _, index, label = line.split(":")
        assert CLASSES[int(index)] == label


def test_kserve_reads_the_saved_model(exported):
    (text,) = blocks("KServe", "yaml")
    service = yaml.safe_load(text)
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "tensorflow"} and model["storageUri"].startswith("pvc://")
    assert f"/v1/models/{service['metadata']['name']}:predict" in part("KServe")
    versions = [path.name for path in (exported[0] / "saved_model").iterdir()]
    assert versions == ["1"]  # a folder of versions is what the storage holds
