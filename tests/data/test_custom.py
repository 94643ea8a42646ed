"""Data sets that a function makes."""

import sys

import numpy as np
import pytest

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


@pytest.mark.parametrize("value, words", [
    (None, "it returned NoneType"), (("a", 1), "it returned tuple"),
    ((["a"], (IMAGES.astype(float), LABELS), (IMAGES, LABELS)), "its images are float64"),
    ((["a", "b", "c"], (IMAGES, LABELS[:3]), (IMAGES, LABELS)), "6 images and labels int64 \\[3\\]"),
    ((["a"], (IMAGES, LABELS), (IMAGES, LABELS)), "its labels go from 0 to 2, and it names 1 classes"),
    ((["a", "b", "c"], (IMAGES, LABELS), (IMAGES[:, :2], LABELS)), "its images are uint8 \\[6, 2, 4, 3\\]")])
def test_what_a_function_may_not_return(made, value, words):
    with pytest.raises(UsageError, match=words):
        made(value)


def test_a_function_that_is_not_there():
    with pytest.raises(UsageError, match="--dataset=nowhere.at:all can't be imported"):
        load(Config(dataset="nowhere.at:all"))


@pytest.mark.parametrize("flag, name, called", [
    ("dataset", "taking:nothing", r"nothing\(config\)"),
    ("model", "taking:one", r"one\(classes, image_shape\)")])
def test_a_function_that_takes_something_else(monkeypatch, tmp_path, flag, name, called):
    (tmp_path / "taking.py").write_text("def nothing(): pass\ndef one(config): pass\n")
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
