import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer import files
from trainer.errors import StorageError
from trainer.export import PATHS, export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A little training, exported: (what trained, folder, result)."""
    from conftest import Trainable

    from trainer.data import shapes

    made = Trainable(shapes.draw_dataset(0, 240, 50), 2, model="resnet20", learning_rate=0.003)
    made.train(40)
    folder = tmp_path_factory.mktemp("run") / "export"
    return made, folder, export(made.config, made.data, made.state.model, None, folder)


def logits(made):
    return made.state.model(made.data.test.images.astype(np.float32), training=False).numpy()


@pytest.mark.parametrize("name", ["h5", "keras"])
def test_keras_files_take_pixels_and_give_the_same_logits(exported, name):
    made, folder, _ = exported
    model = keras.models.load_model(folder / PATHS[name], compile=False)
    np.testing.assert_array_equal(model(made.data.test.images.astype(np.float32), training=False).numpy(), logits(made))


def test_the_saved_model_gives_probabilities_classes_and_names(exported):
    made, folder, _ = exported
    answer = tf.saved_model.load(str(folder / PATHS["saved_model"])).signatures["serving_default"](
        images=tf.constant(made.data.test.images))
    np.testing.assert_allclose(answer["probabilities"].numpy(), tf.nn.softmax(logits(made)).numpy(), atol=1e-6)
    np.testing.assert_array_equal(answer["class"].numpy(), logits(made).argmax(1))
    assert answer["class_name"].numpy()[0].decode() == made.data.classes[logits(made)[0].argmax()]


def encoded(image, kind):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def test_the_saved_model_reads_files(exported):
    made, folder, _ = exported
    images = made.data.test.images[:6]
    serve = tf.saved_model.load(str(folder / PATHS["saved_model"])).signatures["serve_bytes"]
    png = serve(image_bytes=tf.constant([encoded(image, "PNG") for image in images]))
    np.testing.assert_allclose(png["probabilities"].numpy(), tf.nn.softmax(logits(made)[:6]).numpy(), atol=1e-6)
    jpeg = serve(image_bytes=tf.constant([encoded(np.kron(image, np.ones((3, 3, 1), np.uint8)), "JPEG")
                                          for image in images]))
    assert jpeg["probabilities"].shape == (6, 10)
    np.testing.assert_allclose(jpeg["probabilities"].numpy().sum(1), 1, atol=1e-5)


def test_weights_are_stored_once(exported):
    made, folder, _ = exported
    weights = sum(variable.numpy().nbytes for variable in made.state.model.variables)
    stored = sum(path.stat().st_size for path in (folder / PATHS["saved_model"] / "variables").iterdir())
    assert weights <= stored < 1.2 * weights


def test_each_export_is_measured_and_sealed(exported):
    made, folder, result = exported
    accuracy = np.mean(logits(made).argmax(1) == made.data.test.labels)
    assert accuracy > 0.15
    assert {name: entry["accuracy"] for name, entry in result.items()} == dict.fromkeys(PATHS, accuracy)
    manifest, fault = files.read_manifest(folder)
    assert not fault and manifest["exports"] == json.loads(json.dumps(result))
    assert {"model.h5", "model.keras", "saved_model/1/saved_model.pb"} <= set(manifest["files"])


def test_an_export_that_differs_fails_and_leaves_the_old_one(exported):
    made, folder, _ = exported
    before = files.read_manifest(folder)[0]
    with pytest.raises(StorageError, match="exports differ from the model's test accuracy of 99.0000%: h5"):
        export(made.config, made.data, made.state.model, 0.99, folder)
    assert files.read_manifest(folder) == (before, None)
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


def test_an_export_that_cannot_be_loaded_fails(exported, monkeypatch, tmp_path):
    made, _, _ = exported
    monkeypatch.setattr("trainer.export._write", lambda name, model, classes, path: path.write_bytes(b"junk"))
    from dataclasses import replace

    with pytest.raises(StorageError, match="h5 export can't be loaded again"):
        export(replace(made.config, export=("h5",)), made.data, made.state.model, None, tmp_path / "export")


def test_a_model_trained_in_bfloat16_is_exported_in_float32(trainable, tmp_path):
    from dataclasses import replace

    made = trainable(1, precision="bfloat16")
    export(replace(made.config, export=("keras",)), made.data, made.state.model, None, tmp_path / "export")
    model = keras.models.load_model(tmp_path / "export/model.keras", compile=False)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    for ours, theirs in zip(made.weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
