"""Exports: what plain Keras and TensorFlow make of them, and that each is measured."""

import dataclasses
import errno
import io
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import gpu_like
import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf
from PIL import Image

import trainer.main
from trainer.config import EXPORTS
from trainer.errors import Stopped, StorageError, UsageError
from trainer.export.export_processes import ExportProcesses
from trainer.export.exporter import _digest, export, float32_copy
from trainer.export.folder import PATHS, ExportFolder, write_labels
from trainer.export.formats import libraries
from trainer.export.measure import Measurement
from trainer.export.trial.trial import ExportTrial
from trainer.storage.manifest import read_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A little training, exported: (what trained, folder, result)."""
    from conftest import Trainable

    from trainer.data.sources import shapes

    made = Trainable(shapes.render_dataset(0, 240, 50), 2, model="small_models:normalized", learning_rate=0.01)
    made.train(40)
    folder = tmp_path_factory.mktemp("run") / "export"
    return made, folder, export_measured(made.job, made.state.model, folder)


def export_measured(job, model, folder, between_pieces=lambda: None):
    """Exports a float32 model, compared with its own accuracy; no format may fail."""
    measurement = Measurement(job, between_pieces)
    exports = export(job, model, measurement, measurement.predictions(model, 0).accuracy, folder=folder,
                     step=40)
    exports.require_all()
    return exports.results


def with_exports(job, *formats):
    return dataclasses.replace(job, config=dataclasses.replace(job.config, export=formats))


def measured(result):
    return {name: (entry["accuracy"], entry["examples"]) for name, entry in result.items()}


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
    assert {name: entry["accuracy"] for name, entry in result.items()} == dict.fromkeys(EXPORTS, accuracy)
    manifest, fault = read_manifest(folder)
    weights = manifest["exports"]["h5"]["weights"]
    assert (weights["step"], weights["temperature"], len(weights["sha256"])) == (40, None, 64)
    assert not fault and manifest["exports"] == {name: {**entry, "weights": weights} for name, entry in result.items()}
    assert (folder / "labels.txt").read_text().splitlines() == list(made.data.classes)
    assert {"model.h5", "model.keras", "saved_model/1/saved_model.pb"} <= set(manifest["files"])


def test_exporting_again_makes_the_next_version_and_keeps_what_was_not_asked_for(exported, tmp_path):
    """A SavedModel of other weights is another version; damaged files don't stay."""
    made, folder, _ = exported
    copy = shutil.copytree(folder, tmp_path / "export")

    def again(step, *formats, keeps=True):
        measurement, job = Measurement(made.job), with_exports(made.job, *formats)
        export(job, made.state.model, measurement, measurement.predictions(made.state.model, 0).accuracy, folder=copy,
               step=step, keeps=keeps).require_all()
        manifest, fault = read_manifest(copy)
        assert not fault
        return {name: (entry["path"], entry["weights"]["step"]) for name, entry in manifest["exports"].items()}

    kept = {"h5": ("export/model.h5", 40), "keras": ("export/model.keras", 40)}
    assert again(40, "saved_model") == {"saved_model": ("export/saved_model/1", 40), **kept}
    assert again(41, "saved_model") == {"saved_model": ("export/saved_model/2", 41), **kept}
    assert [path.name for path in (copy / "saved_model").iterdir()] == ["2"]
    assert keras.models.load_model(copy / "model.keras", compile=False).output_shape == (None, 10)
    (copy / "model.h5").write_bytes(b"damaged")
    assert again(42, "saved_model") == {"saved_model": ("export/saved_model/3", 42), "keras": kept["keras"]}
    other = float32_copy(made.config, 10, made.data.image_shape, made.state.model)
    other.set_weights([value * 1.01 for value in other.get_weights()])
    folder_of_others = ExportFolder(copy, {"step": 42, "temperature": None, "sha256": _digest(other)},
                                    list(made.data.classes), True)
    assert folder_of_others.paths()["saved_model"] == "saved_model/4", "other weights of the same step"
    assert not ExportFolder(copy, {}, ["other", "classes"], True).keep(tmp_path / "new", ())
    assert again(43, "saved_model", keeps=False) == {"saved_model": ("export/saved_model/4", 43)}


def test_litert_gives_the_same_logits_in_fewer_bytes(exported, tmp_path, capfd):
    made, _, result = exported
    names = ("litert", "litert_float16", "litert_int8")
    sizes = export_measured(with_exports(made.job, *names), made.state.model, tmp_path / "export")
    assert not capfd.readouterr().err, "the converter's words about itself"
    assert sizes["litert_int8"]["bytes"] < sizes["litert_float16"]["bytes"] < 0.7 * sizes["litert"]["bytes"]
    for name, largest in zip(names, (1e-4, 0.05, 1.0), strict=True):
        with pytest.warns(UserWarning, match="deprecated"):
            runner = tf.lite.Interpreter(str(tmp_path / "export" / PATHS[name])).get_signature_runner("serving_default")
        answer = runner(pixels=made.data.test.images.astype(np.float32))["logits"]
        assert 0 <= np.abs(answer - logits(made)).max() < largest
    assert abs(sizes["litert"]["accuracy"] - result["keras"]["accuracy"]) < 1e-9


def test_onnx_and_openvino_give_the_same_logits_in_any_batch(exported, tmp_path, capfd):
    """In their own runtimes; input and output have names."""
    made, _, result = exported
    folder, images = tmp_path / "export", made.data.test.images.astype(np.float32)
    results = export_measured(with_exports(made.job, "onnx", "openvino"), made.state.model, folder)
    import onnxruntime
    import openvino  # imported before this, it would tell Intel of it

    assert not capfd.readouterr().err, "the converters' words about themselves"
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(folder / "openvino/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for some in (images, images[:1]):
        for answer in (session.run(["logits"], {"pixels": some})[0], compiled({"pixels": some})["logits"]):
            np.testing.assert_allclose(answer, logits(made)[:len(some)], atol=1e-4)
    assert {entry["accuracy"] for entry in results.values()} == {result["keras"]["accuracy"]}
    manifest, fault = read_manifest(folder)
    assert not fault and {"model.onnx", "openvino/model.xml", "openvino/model.bin"} < set(manifest["files"])


def test_a_format_whose_library_is_missing_is_refused_before_anything_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(libraries._MODULES, "onnx", ("tf2onnx", "not_installed_here"))
    libraries.require_libraries(["h5", "openvino"])
    with pytest.raises(UsageError, match="--export=onnx needs not_installed_here, which is not installed"):
        libraries.require_libraries(["h5", "onnx"])
    monkeypatch.chdir(tmp_path)
    assert trainer.main.main(["--dataset=shapes", "--export=keras,onnx", "--model_dir=run"]) == 64
    assert "fix: pip install 'lockstep-trainer[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_export_has_its_latency(exported):
    """Measured, and with all that it depends on; what it was is the machine's affair."""
    _, folder, result = exported
    for entry in result.values():
        timed = entry["latency"]
        assert (timed["device"], timed["threads"]) == ("CPU", len(os.sched_getaffinity(0)))
        for batch in ("batch_1", "batch_32"):
            assert timed[batch]["ms"] > 0 and 3 <= timed[batch]["calls"] <= 50
    assert read_manifest(folder)[0]["exports"]["keras"]["latency"] == result["keras"]["latency"]


def test_the_saved_model_converts_to_litert_as_everybody_calls_it(exported):
    """tensorflow#41255: LiteRT has no operations for what serve_bytes does."""
    made, folder, _ = exported
    content = tf.lite.TFLiteConverter.from_saved_model(str(folder / PATHS["saved_model"])).convert()
    with pytest.warns(UserWarning, match="deprecated"):
        interpreter = tf.lite.Interpreter(model_content=content)
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    answer = interpreter.get_signature_runner("serving_default")(images=made.data.test.images)
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits(made)), atol=1e-5)


def test_the_saved_model_is_a_layer_of_keras(exported):
    made, folder, _ = exported
    layer = keras.layers.TFSMLayer(str(folder / PATHS["saved_model"]))
    np.testing.assert_allclose(layer(tf.constant(made.data.test.images))["probabilities"],
                               tf.nn.softmax(logits(made)), atol=1e-6)


def test_labels_are_a_class_a_line(tmp_path):
    write_labels(tmp_path, ["a b", "two\nlines", "grün", "\udcff"])
    assert (tmp_path / "labels.txt").read_bytes() == b"a b\ntwo lines\ngr\xc3\xbcn\n\xff\n"


def test_an_export_that_differs_fails_and_leaves_the_old_ones(exported):
    made, folder, _ = exported
    before = read_manifest(folder)[0]
    exports = export(with_exports(made.job, "keras"), made.state.model, Measurement(made.job), 0.99, folder=folder,
                     step=41)
    assert not exports.results and exports.failures.keys() == {"keras"}
    assert re.fullmatch(r"is not the model: its test accuracy is \d\d\.\d{4}%, the model's 99\.0000%",
                        exports.failures["keras"])
    assert read_manifest(folder) == (before, None)
    assert [path.name for path in folder.parent.iterdir()] == ["export"]
    with pytest.raises(StorageError, match="the keras export is not the model"):
        exports.require_all()


def test_formats_that_fail_leave_the_others(exported, monkeypatch, tmp_path):
    """Whatever Keras, HDF5 or TensorFlow raises about one format costs that format."""
    made, _, _ = exported

    def save(model, path):
        if path.suffix == ".h5":
            raise NotImplementedError("no such layer\nand more")
        path.write_bytes(b"junk")

    monkeypatch.setattr(keras.Model, "save", save)
    measurement, folder = Measurement(made.job), tmp_path / "export"
    accuracy = measurement.predictions(made.state.model, 0).accuracy
    exports = export(made.job, made.state.model, measurement, accuracy, folder=folder, step=40)
    assert exports.results.keys() == {"saved_model"} and exports.failures.keys() == {"h5", "keras"}
    assert exports.failures["h5"] == "can't be written: NotImplementedError: no such layer"
    assert exports.failures["keras"].startswith("can't be loaded again (exit 1)")
    manifest, damage = read_manifest(folder)
    assert not damage and manifest["exports"].keys() == exports.results.keys()
    assert not (folder / "model.h5").exists() and not (folder / "model.keras").exists()


def test_a_full_disk_is_not_the_fault_of_a_format(exported, monkeypatch, tmp_path):
    made, _, _ = exported

    def save(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", save)
    with pytest.raises(OSError, match="No space left"):
        export(made.job, made.state.model, Measurement(made.job), 0.5, folder=tmp_path / "export",
               step=40)
    assert not list(tmp_path.iterdir())


def test_formats_are_tried_on_the_untrained_model(small, monkeypatch):
    """Keras writes operators between layers into an .h5 file, and can't load them from it."""
    from conftest import Trainable

    monkeypatch.setattr("trainer.export.trial.trial._DELAY_SECONDS", 0.0)
    monkeypatch.setenv("PYTHONPATH", str(Path(small_models.__file__).parent))  # of the process that tries them
    job = Trainable(small, model="small_models:operators").job
    trial = ExportTrial(job)
    try:
        warnings, deadline = trial.check(), time.monotonic() + 120
        while not warnings and time.monotonic() < deadline:
            time.sleep(0.05)
            warnings = trial.check()
        assert len(warnings) == 1
        assert warnings[0].startswith("the h5 export of this model can't be loaded again (exit 1): ValueError: Unknown")
        assert warnings[0].endswith("--export=keras,saved_model leaves it out")
        assert trial.check() == []
        trial._job, trial._ended = with_exports(job, *PATHS), False  # as if the formats had been named
        with pytest.raises(UsageError, match="the h5 export of this model can't be loaded again"):
            trial.check()
    finally:
        trial.close()


def test_a_trial_that_is_closed_ends_all_that_it_started(small, monkeypatch):
    from conftest import Trainable

    monkeypatch.setattr("trainer.export.trial.trial._DELAY_SECONDS", 0.0)
    trial = ExportTrial(Trainable(small, model="cnn2").job)
    assert trial.check() == []
    started = trial._process.pid
    trial.close()
    assert not subprocess.run(["pgrep", "--session", str(started), "--runstates", "D,R,S,T"],
                              capture_output=True).stdout


def test_a_model_trained_in_bfloat16_is_exported_in_float32(trainable, tmp_path):
    made = trainable(1, precision="bfloat16")
    copy = float32_copy(made.job.config, len(made.data.classes), made.data.image_shape, made.state.model)
    export_measured(with_exports(made.job, "keras"), copy, tmp_path / "export")
    model = keras.models.load_model(tmp_path / "export/model.keras", compile=False)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    for ours, theirs in zip(made.weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_measuring_tells_of_each_piece_of_work_and_can_be_ended_by_it(exported, monkeypatch, tmp_path):
    """The deadline on progress hears of every chunk: however long all take, each is short."""
    made, _, result = exported
    monkeypatch.setattr("trainer.export.measure._CHUNK_SIZE", 5)
    calls = []
    again = export_measured(made.job, made.state.model, tmp_path / "export", lambda: calls.append(1))
    assert measured(again) == measured(result)
    assert len(calls) >= 10 + 3 * 10  # of the model itself, and of three formats
    calls.clear()

    def end():
        calls.append(1)
        if len(calls) > 25:
            raise Stopped("asked to stop", "again")

    with pytest.raises(Stopped):
        export_measured(made.job, made.state.model, tmp_path / "other", end)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_where_a_gpu_has_no_room_an_export_is_measured_on_the_cpu(exported, monkeypatch, tmp_path):
    """The processes that would use the GPU fail here, as they do where its memory is taken."""
    made, _, result = exported
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nopen(os.environ['TRIED'], 'a').write(os.environ.get('TF_FORCE_GPU_ALLOW_GROWTH', 'cpu') + ' ')\n"
        "if 'TF_FORCE_GPU_ALLOW_GROWTH' in os.environ: raise SystemExit('out of memory')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TRIED", str(tmp_path / "tried"))
    job = with_exports(made.job, "h5", "keras")
    job = dataclasses.replace(job, runtime=dataclasses.replace(job.runtime, kind=gpu_like.KIND))
    again = export_measured(job, made.state.model, tmp_path / "export")
    assert measured(again) == {name: measured(result)[name] for name in job.config.formats}
    assert (tmp_path / "tried").read_text().split() == ["true", "cpu", "true", "cpu"]


@pytest.mark.parametrize("hangs", ["while it is imported", "while it reads images"])
def test_an_export_that_hangs_is_named_and_ended(exported, monkeypatch, hangs):
    _, folder, _ = exported
    monkeypatch.setattr("trainer.export.export_processes._LAST_SECONDS", 4.0)
    with ExportProcesses(["keras", "h5"]) as processes:
        if hangs == "while it reads images":  # no pipe is closed, so more could come
            processes.load({name: folder / PATHS[name] for name in ("keras", "h5")})
        measured = processes.answers(lambda: None)
        why = "was given all images and did not end in 4 s"
        assert measured == ({}, {"keras": why, "h5": why})
        started = processes._process.pid
    deadline = time.monotonic() + 30
    while subprocess.run(["pgrep", "--session", str(started), "--runstates", "D,R,S,T"], capture_output=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)
