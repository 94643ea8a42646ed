"""Which images are trained on, which choose and which test: names, layouts, and what is held back, of every source."""

import dataclasses
import sys
import types

import numpy as np
import pytest
from image_files import class_folders

from trainer.config import Config
from trainer.data.dataset import Dataset, in_memory, load
from trainer.data.held_back import held_back
from trainer.errors import DataError, UsageError


def open_folder(root, **more) -> Dataset:
    return load(Config(dataset="folder", data_dir=str(root), model_dir="/none", **more))


def sizes(data):
    return {name: split.size for name, split in data.splits.items()}


def lay_out(root, counts):
    """Class folders below each of the folders, with so many images."""
    for split, (folder, count) in enumerate(counts.items()):
        class_folders(root / folder, count, split=split % 2)
    return root


@pytest.fixture
def returning(monkeypatch):
    """The data set of a function that returns the arguments."""
    def load_it(*returned, **settings):
        monkeypatch.setitem(sys.modules, "returned", types.ModuleType("returned"))
        sys.modules["returned"].images = lambda config: returned
        return load(Config(dataset="returned:images", **settings))

    return load_it


@pytest.mark.parametrize("folders, found", [
    (("train", "test"), ("train", "test")), (("Train", "Test"), ("train", "test")),
    (("training", "testing"), ("train", "test")), (("TRAIN", "eval"), ("train", "test")),
    (("train", "val"), ("train", "validation")), (("train", "Valid"), ("train", "validation")),
    (("train", "validation"), ("train", "validation")), (("Training", "dev"), ("train", "validation")),
    (("train", "val", "test"), ("train", "validation", "test")),
    (("train", "valid", "Eval"), ("train", "validation", "test"))])
def test_the_usual_names_in_any_case(tmp_path, folders, found):
    counts = (40, 20, 10)[:len(folders)]
    data = open_folder(lay_out(tmp_path, dict(zip(folders, counts, strict=True))))
    assert sizes(data) == dict(zip(found, counts, strict=True)) and not data.warnings and not data.held_back


def test_validation_is_evaluated_where_there_are_both(tmp_path):
    data = open_folder(lay_out(tmp_path, {"train": 40, "val": 20, "test": 10}))
    assert (data.evaluated_name, data.evaluated.size, data.versions["splits"]) == ("validation", 20, 2)


def test_a_class_may_be_called_train(tmp_path):
    data = open_folder(class_folders(tmp_path, 40, classes=("train", "bus", "test", "car")) and tmp_path)
    assert data.classes == ("bus", "car", "test", "train")


def test_a_split_may_have_a_class_called_train(tmp_path):
    for split in ("train", "test"):
        class_folders(tmp_path / split, 20, classes=("train", "bus"))
    assert open_folder(tmp_path).classes == ("bus", "train")


@pytest.mark.parametrize("make, words", [
    (lambda root: lay_out(root, {"train": 20, "Train": 20}), "2 folders for the train split: Train/, train/"),
    (lambda root: lay_out(root, {"train": 20, "val": 20, "valid": 20}), "for the validation split: val/, valid/"),
    (lambda root: lay_out(root, {"val": 20, "test": 20}), "has test/, val/ but no train/"),
    (lambda root: lay_out(root, {"photos/train": 20, "photos/val": 20}), "photos, which holds train/, val/"),
    (lambda root: lay_out(root, {"a/b/train": 20, "a/b/val": 20}), "b, which holds train/, val/"),
    (lambda root: lay_out(root, {"a/b": 20}), "b, which holds "),
    (lambda root: lay_out(root, {"train/inner": 20}), "inner, which holds "),
    (lambda root: class_folders(root, 9, classes=("cat",)), "of one class, cat: there is nothing to tell apart"),
    (lambda root: class_folders(root, 9, classes=("train", "test")), "test/, train/ in .* no class folders"),
    (lambda root: class_folders(root, 9, classes=("train",)), "train/ in .* hold images, but no class folders")])
def test_a_layout_that_is_none_is_refused_with_the_way_out(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(DataError, match=words):
        open_folder(tmp_path)


@pytest.mark.parametrize("make, words", [
    (lambda root: lay_out(root, {"train": 20, "test": 10, "more": 10}), "more/; the splits are test/, train/"),
    (lambda root: lay_out(root, {"train": 40}) and class_folders(root, 9, classes=("test",)), "test/; the splits are")])
def test_a_folder_that_is_not_used_is_named(tmp_path, make, words):
    make(tmp_path)
    (warning,) = open_folder(tmp_path).warnings
    assert words in warning


def test_a_split_beside_the_data_folder_is_named(tmp_path):
    lay_out(tmp_path, {"train": 40, "val": 10})
    (warning,) = open_folder(tmp_path / "train").warnings
    assert "val/ beside" in warning and f"--data_dir={tmp_path}" in warning


def test_what_is_held_back_is_a_share_of_each_class():
    labels = np.repeat(np.arange(6), [1, 2, 5, 10, 20, 100])
    mask = held_back(labels, [b"%d" % number for number in range(len(labels))], 0.2)
    assert np.bincount(labels, mask).tolist() == [0, 1, 1, 2, 4, 20]


def test_what_is_held_back_follows_from_the_names_alone():
    names = [b"image %d" % number for number in range(500)]
    labels = np.arange(500) % 7
    turned = np.random.default_rng(0).permutation(500)
    mask = held_back(labels, names, 0.1)
    np.testing.assert_array_equal(held_back(labels[turned], [names[index] for index in turned], 0.1), mask[turned])


def test_few_images_change_sides_when_others_come():
    names, labels = [b"%d" % number for number in range(1000)], np.arange(1000) % 5
    before, after = held_back(labels[:800], names[:800], 0.1), held_back(labels, names, 0.1)[:800]
    assert (before != after).sum() <= 16


def test_the_rarest_class_keeps_an_image_to_train_on(tmp_path):
    class_folders(tmp_path, 40, classes=("cat", "dog"))
    class_folders(tmp_path, 2, classes=("owl",), split=1)
    data = open_folder(tmp_path, validation_fraction=0.9)
    assert np.bincount(data.train.labels).tolist() == [2, 2, 1]


def test_the_same_images_are_held_back_without_a_train_folder(tmp_path):
    flat, below = (open_folder(lay_out(tmp_path / name, {folder: 100}))
                   for name, folder in (("a", "."), ("b", "train")))
    names = [{split.name_of(example).removeprefix("train/") for example in range(split.size)}
             for split in (flat.validation, below.validation)]
    assert names[0] == names[1] and len(names[0]) == 10


def arrays(count, labels=None):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return images, np.arange(count) % 2 if labels is None else labels


def test_arrays_are_held_back_from_the_training_split_alone():
    data = in_memory("t", ("a", "b"), arrays(100), arrays(10), validation_fraction=0.2)
    assert sizes(data) == {"train": 80, "validation": 20, "test": 10} and data.held_back
    together = np.sort(np.concatenate([data.train.images, data.validation.images])[:, 0, 0, 0])
    np.testing.assert_array_equal(together, np.arange(100))


@pytest.mark.parametrize("splits, found", [
    ((arrays(40),), {"train": 36, "validation": 4}), ((arrays(40), arrays(9)), {"train": 40, "test": 9}),
    ((arrays(40), arrays(9), arrays(8)), {"train": 40, "validation": 9, "test": 8})])
def test_a_function_may_return_one_two_or_three_splits(returning, splits, found):
    assert sizes(returning(("a", "b"), *splits)) == found


@pytest.mark.parametrize("source", ["folder", "arrays"])
def test_a_fraction_beside_a_validation_split_is_refused(tmp_path, returning, source):
    lay_out(tmp_path, {"train": 20, "val": 20})
    with pytest.raises(UsageError, match="--validation_fraction=0.2 holds training images back, but .* has "):
        if source == "folder":
            open_folder(tmp_path, validation_fraction=0.2)
        else:
            returning(("a", "b"), arrays(40), arrays(9), arrays(8), validation_fraction=0.2)


def test_classes_of_a_single_image_each_hold_nothing_back(returning, tmp_path):
    class_folders(tmp_path, 2, classes=("a", "b"))
    for load_it in (lambda: open_folder(tmp_path), lambda: returning(("a", "b"), arrays(2))):
        with pytest.raises(DataError, match="every class has a single image"):
            load_it()


def test_nothing_to_evaluate_on_is_refused(tmp_path):
    with pytest.raises(DataError, match="nothing to evaluate on"):
        open_folder(lay_out(tmp_path, {"train": 40}), validation_fraction=0.0)


def test_a_class_without_training_images_is_told_of_arrays(returning):
    *_, warning = returning(("a", "b", "c"), arrays(40), arrays(9)).warnings
    assert warning == "there are no images to train on of the class c"


def test_a_class_whose_training_images_are_all_unusable_is_an_error(tmp_path):
    class_folders(tmp_path / "train", 20, classes=("cat", "dog"))
    class_folders(tmp_path / "test", 20, classes=("cat", "dog"))
    for path in (tmp_path / "train/dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no images to train on of the class dog"):
        open_folder(tmp_path, max_bad_records=10)


def test_a_single_class_of_arrays_is_refused(returning):
    with pytest.raises(DataError, match="a single class, a"):
        returning(("a",), arrays(4, np.zeros(4, int)), arrays(4, np.zeros(4, int)))


@pytest.mark.parametrize("folders, version", [
    (("train", "test"), 1), (("train", "val"), 1), (("train",), 2), (("train", "val", "test"), 2)])
def test_splits_that_the_first_version_divided_otherwise_have_the_second(tmp_path, folders, version):
    assert open_folder(lay_out(tmp_path, dict.fromkeys(folders, 20))).versions["splits"] == version


def test_the_fingerprint_does_not_depend_on_what_is_held_back(tmp_path):
    lay_out(tmp_path, {"train": 40})
    one, other = (open_folder(tmp_path, validation_fraction=fraction) for fraction in (0.1, 0.5))
    assert one.fingerprint == other.fingerprint and sizes(one) != sizes(other)
    assert dataclasses.replace(one, classes=("x",)).fingerprint != one.fingerprint
