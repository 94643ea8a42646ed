"""Data sets that a function makes."""

import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from trainer import models
from trainer.config import Config
from trainer.data.dataset import in_memory, load
from trainer.errors import DataError, UsageError

IMAGES, LABELS = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3), np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Loads what a function `make(config)` returns."""
    def load_it(value):
        monkeypatch.setitem(sys.modules, "mine", type(sys)("mine"))
        sys.modules["mine"].make = lambda config: value
        return load(Config(dataset="mine:make"))

    return load_it


def test_arrays_and_data_sets(made):
    data = made((["a", "b", "c"], (IMAGES, LABELS), (IMAGES[:2], LABELS[:2].tolist())))
    assert data.classes == ("a", "b", "c") and data.train.size == 6 and data.image_shape == (4, 4, 3)
    assert made(data) is data
    assert "2 of each; 2 to test on; 4 × 4 × 3" in data.sentence()
    assert Config(dataset="mine:make").model_dir == "runs/make-cnn3"


HALF = (IMAGES[:3], LABELS[:3])
SAME = {"the whole numbers": (IMAGES.astype(np.int64), LABELS), "floats": (IMAGES.astype("f4"), LABELS.astype(float)),
        "a column": (IMAGES, LABELS[:, None]), "a column of bytes": (IMAGES, LABELS[:, None].astype(np.uint8)),
        "one-hot": (IMAGES, np.eye(3)[LABELS]), "lists": (list(IMAGES), LABELS.tolist()),
        "objects": (IMAGES, LABELS.astype(object)), "a tensor": (tf.constant(IMAGES), tf.constant(LABELS))}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("form", [
    lambda x, y: ((x, y), (x, y)), lambda x, y: [(x, y), [x, y]], lambda x, y: (x, y, x, y), lambda x, y: (x, x, y, y),
    lambda x, y: {"train": (x, y), "Test": {"image": x, "label": y}}, lambda x, y: (["0", "1", "2"], (x, y), (x, y)),
    lambda x, y: {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "classes": [0, 1, 2]}])
def test_arrays_as_people_have_them(made, name, form):
    data = made(form(*SAME[name]))
    assert data.classes == ("0", "1", "2") and not data.warnings and set(data.splits) == {"train", "test"}
    for split in data.splits.values():
        np.testing.assert_array_equal(split.images, IMAGES)
        np.testing.assert_array_equal(split.labels, LABELS)


@pytest.mark.parametrize("value, splits", [
    ((IMAGES, LABELS), ["train", "validation"]), (((IMAGES, LABELS),), ["train", "validation"]),
    ({"images": IMAGES, "target": LABELS, "data": IMAGES.reshape(6, -1), "DESCR": ""}, ["train", "validation"]),
    ((IMAGES, LABELS, *HALF, IMAGES, LABELS), ["train", "validation", "test"]),
    ({"train": (IMAGES, LABELS), "dev": HALF, "eval": HALF}, ["train", "validation", "test"])])
def test_any_number_of_splits(made, value, splits):
    assert list(made(value).splits) == splits


@pytest.mark.parametrize("labels, classes", [
    (["cat", "ant", "cow"] * 2, ("ant", "cat", "cow")), (np.array([b"b", b"a", b"b"] * 2), ("a", "b")),
    ([10, 9, 2] * 2, ("2", "9", "10")), ([True, False, True] * 2, ("0", "1"))])
def test_labels_say_the_classes(made, labels, classes):
    data = made(((IMAGES, labels), (IMAGES[:3], labels[:3])))
    assert data.classes == classes
    shown = [classes[label] for label in data.train.labels]
    values = [label.decode() if isinstance(label, bytes) else str(int(label) if isinstance(label, bool) else label)
              for label in np.asarray(labels).tolist()]
    assert shown == values and data.test.labels.tolist() == data.train.labels[:3].tolist()


def test_names_as_labels_beside_names_of_classes(made):
    data = made((["cow", "cat", "ant"], (IMAGES, ["cat", "ant", "cow"] * 2)))
    assert data.classes == ("cow", "cat", "ant")
    assert sorted(np.concatenate([split.labels for split in data.splits.values()]).tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("images, seen, words", [
    (IMAGES[..., 0], IMAGES[..., :1], None),
    (IMAGES / np.float64(255), IMAGES, "fractions of 0 to 1: multiplied by 255"),
    (IMAGES.astype("f4") / 255, IMAGES, "fractions of 0 to 1"), (IMAGES > 9, 255 * (IMAGES > 9), "true or false"),
    (IMAGES.astype(np.uint16) * 257, IMAGES, "16 bits: the upper 8"),
    (IMAGES % 17, IMAGES % 17, "nearly black: multiply"),
    (IMAGES.astype(np.uint16) * 16, IMAGES // 16, "up to 15 of 255"),
    (np.concatenate([IMAGES, IMAGES[..., :1]], -1), None, "4 channels")])
def test_images_are_brought_to_bytes_and_that_is_said(made, images, seen, words):
    data = made(((images, LABELS), (images, LABELS)))
    np.testing.assert_array_equal(data.train.images, images if seen is None else seen)
    assert words is None if not data.warnings else words in " ".join(data.warnings)


@pytest.mark.parametrize("value, words, fix", [
    (None, "it returned NoneType", "docs/data.md"), (("a", 1), "it returned tuple of 2 \\(str, int\\)", ""),
    (tf.data.Dataset.range(3), "it returned _RangeDataset", ""), ((["a", "b"],), "it returned tuple of 1 \\(list", ""),
    ({"train": (IMAGES, LABELS), "extra": 1, "test": IMAGES}, "its test is ndarray, not", ""),
    ({"pictures": IMAGES, "labels": LABELS}, "the keys of its dict are pictures, labels", "call them images"),
    ({"test": (IMAGES, LABELS)}, "dict without images to train on", ""),
    ((IMAGES - 300.0, LABELS), "its images are float64 from -300 to -45", "bring them to 0 to 255: \\(images \\+300"),
    ((IMAGES * np.nan, LABELS), "not finite", "nan_to_num"),
    ((IMAGES.reshape(6, -1), LABELS), "rows of 48 numbers", "images.reshape\\(-1, 4, 4, 3\\)"),
    ((IMAGES.reshape(6, -1)[:, :40], LABELS), "rows of 40 numbers", "-1, HEIGHT, WIDTH, 1"),
    ((np.zeros((6, 3, 8, 8), np.uint8), LABELS), "with the channels first", "np.transpose\\(images, \\(0, 2, 3, 1"),
    ((np.zeros((6, 1, 28, 28)), LABELS), "with the channels first", "np.transpose"),
    (([IMAGES[0], IMAGES[1, :2]], [0, 1]), "different sizes", "--dataset=folder"),
    ((IMAGES.astype("U3"), LABELS), "its images are <U3", ""),
    (((IMAGES, LABELS), (IMAGES / 255, LABELS)), "float64 .* in one split, uint8", "alike"),
    ((["a", "b", "c"], (IMAGES, LABELS[:3]), (IMAGES, LABELS)), "6 images and labels int64 \\[3\\]", "for each image"),
    ((["a"], (IMAGES, LABELS), (IMAGES, LABELS)), "its labels go from 0 to 2, and it names 1 classes", "from 0 on"),
    ((["a", "b", "c"], (IMAGES, LABELS + 1), (IMAGES, LABELS + 1)), "go from 1 to 3", "subtract 1"),
    ((["a", "b", "c"], (IMAGES, LABELS), (IMAGES[:, :2], LABELS)), "its images are uint8 \\[6, 2, 4, 3\\]", "alike"),
    ((IMAGES, np.ones((6, 3))), "are not one class for each image", "argmax"),
    ((IMAGES, LABELS + 0.5), "not whole", ""),
    ((IMAGES, LABELS - 1), "go from -1 to 1", "without a label"),
    (((IMAGES, LABELS), (IMAGES, LABELS + 1)), "no class of the training split: 3", "the same classes"),
    (((IMAGES, list("abcabc")), (IMAGES, LABELS)), "names in one split", "the same")])
def test_what_a_function_may_not_return(made, value, words, fix):
    with pytest.raises(UsageError, match=words) as caught:
        made(value)
    assert re.search(fix, str(caught.value.fix))


def test_a_function_that_needs_nothing_is_called_so(monkeypatch, tmp_path):
    arrays = "(np.zeros((6, 4, 4), 'u1'), [0, 1] * 3), (np.zeros((6, 4, 4), 'u1'), [0, 1] * 3)"
    (tmp_path / "loaders.py").write_text(
        "import numpy as np\n"
        f"def nothing(): return {arrays}\n"
        f"def load_data(path='mnist.npz'):\n    assert path == 'mnist.npz'\n    return {arrays}\n"
        f"def optional(settings=None):\n    assert settings.dataset\n    return {arrays}\n"
        f"def some(*settings):\n    assert settings[0].dataset\n    return {arrays}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("nothing", "load_data", "optional", "some"):
        assert load(Config(dataset=f"loaders:{name}")).train.size == 6


def test_keras_data_sets_as_they_come(monkeypatch, tmp_path):
    """From Keras's cache; one that isn't there and can't be downloaded is 65."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.datasets.mnist.get_file", lambda **_: str(tmp_path / "mnist.npz"))
    with pytest.raises(DataError, match="--dataset=keras.datasets.mnist:load_data failed: .*No such file"):
        load(Config(dataset="keras.datasets.mnist:load_data"))
    np.savez(tmp_path / "mnist.npz", x_train=IMAGES[..., 0], y_train=LABELS, x_test=IMAGES[..., 0], y_test=LABELS)
    data = load(Config(dataset="keras.datasets.mnist:load_data"))
    assert (data.classes, data.image_shape, list(data.splits)) == (("0", "1", "2"), (4, 4, 1), ["train", "test"])


def test_a_function_that_is_not_there():
    with pytest.raises(UsageError, match="--dataset=nowhere.at:all can't be imported"):
        load(Config(dataset="nowhere.at:all"))


@pytest.mark.parametrize("flag, name, called", [
    ("dataset", "taking:two", r"two\(config\)"),
    ("model", "taking:one", r"one\(classes, image_shape\)")])
def test_a_function_that_takes_something_else(monkeypatch, tmp_path, flag, name, called):
    (tmp_path / "taking.py").write_text("def two(config, other): pass\ndef one(config): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=f"--{flag}={name} can't be called as {called}") as caught:
        load(Config(dataset=name)) if flag == "dataset" else models.build(name, 3, (4, 4, 3))
    assert "define it so: def" in str(caught.value.fix)


def test_what_changed_is_said():
    one = in_memory("t", ("a",), (IMAGES, LABELS * 0), (IMAGES, LABELS * 0), {"one": "1", "two": "2", "three": "3"})
    one.require_same(one.fingerprint, None)
    with pytest.raises(DataError, match="four is gone; three is new; two is another one\n"):
        one.require_same("sha256:other", {"one": "1", "two": "x", "four": "4"})


def test_tensorflow_datasets_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        load(Config(dataset="tfds:mnist"))
    assert "lockstep-trainer[tfds]" in str(caught.value)
