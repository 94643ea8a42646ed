"""Labelled images to measure a finished model on: from any source, whole, with the model's labels."""

import shutil

import numpy as np
import pytest
from image_files import class_folders, encode, figures
from PIL import Image

from trainer.config import Config
from trainer.data.labelled import sources
from trainer.data.labelled.relabelled import relabelled
from trainer.errors import DataError, UsageError

SHAPE = (32, 32, 3)


def load(shape=SHAPE, **settings):
    return sources.load(Config(**settings), shape)


def in_folder(path, **more):
    return load(dataset="folder", data_dir=str(path), **more)


def test_class_folders_alone_are_one_split_also_of_a_single_class(tmp_path):
    class_folders(tmp_path, 6, classes=("b", "a"))
    data = in_folder(tmp_path)
    assert data.classes == ("a", "b") and {name: split.size for name, split in data.splits.items()} == {"all": 6}
    (images, labels), = data.splits["all"].chunks(10)
    drawn, _ = figures(6)
    np.testing.assert_array_equal(images, drawn[[1, 3, 5, 0, 2, 4]])
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    shutil.rmtree(tmp_path / "b")
    assert in_folder(tmp_path).classes == ("a",)


@pytest.mark.parametrize("names, found", [(("Test",), ["test"]), (("valid",), ["validation"]), (("train",), ["train"]),
                                          (("eval", "training", "dev"), ["train", "validation", "test"])])
def test_splits_with_the_usual_names_are_whole(tmp_path, names, found):
    for name in names:
        class_folders(tmp_path / name, 20)
    data = in_folder(tmp_path)
    assert list(data.splits) == found and {split.size for split in data.splits.values()} == {20}
    class_folders(tmp_path / "more", 4)
    assert "not used" in in_folder(tmp_path).warnings[0] and "more/" in in_folder(tmp_path).warnings[0]


def test_the_model_decides_size_and_channels(tmp_path):
    class_folders(tmp_path, 2, side=48)
    (images, _), = in_folder(tmp_path, shape=(20, 20, 1)).splits["all"].chunks(5)
    assert images.shape == (2, 20, 20, 1)
    with pytest.raises(UsageError, match="takes 4"):
        in_folder(tmp_path, shape=(20, 20, 4))


def test_what_is_wrong_in_a_folder_is_named(tmp_path):
    class_folders(tmp_path, 2)
    (tmp_path / "circle/none.txt").write_text("")
    (tmp_path / "loose.png").write_bytes(encode(figures(1)[0][0]))
    with pytest.raises(DataError, match=r"2 images or files.*\n.*circle/none.txt.*\n.*loose.png: it is not in a class"):
        in_folder(tmp_path)
    assert in_folder(tmp_path, max_bad_records=2).bad.count == 2
    with pytest.raises(DataError, match="no images in class folders"):
        (tmp_path / "empty").mkdir()
        in_folder(tmp_path / "empty")


def one_split(config):
    assert config.validation_fraction is None
    images, labels = figures(30)
    return ("ten",) * 10, (images, labels)


def two_splits(config):
    del config
    return ("a", "b"), (figures(4)[0], np.arange(4) % 2), (figures(2)[0], [1, 1])


def test_arrays_are_whole_and_of_the_models_shape():
    data = load(dataset="test_labelled:one_split", validation_fraction=0.5)
    assert {name: split.size for name, split in data.splits.items()} == {"train": 30}
    images = np.concatenate([images for images, _ in data.splits["train"].chunks(7)])
    assert {image.tobytes() for image in images} == {image.tobytes() for image in figures(30)[0]}
    assert list(load(dataset="test_labelled:two_splits").splits) == ["train", "test"]
    with pytest.raises(UsageError, match="sees images of 32 × 32 × 1, and those of .* have 32 × 32 × 3"):
        load((32, 32, 1), dataset="test_labelled:two_splits")


def test_labels_are_the_models_by_the_names_of_the_classes(tmp_path):
    import tensorflow as tf

    class_folders(tmp_path, 9, classes=("cafe\u0301", "b", "a"))  # as some file systems store it
    data = in_folder(tmp_path)
    known = ("b", "z", "café", "a")
    split = relabelled(data.splits["all"], data.classes, known)
    assert [known[label] for label in split.labels] == ["a"] * 3 + ["b"] * 3 + ["café"] * 3
    (images, labels), = split.chunks(20)
    assert labels.tolist() == split.labels.tolist() and split.name_of(0) == "a/00002.png"
    positions = tf.data.Dataset.from_tensors((np.array([8, 0, 5]), np.zeros(3, np.uint32)))
    batch = next(iter(split.read(positions, 1, training=False)))
    assert batch.labels.numpy().tolist() == [2, 3, 0]
    np.testing.assert_array_equal(batch.images.numpy(), images[[8, 0, 5]])


def test_a_class_that_the_model_does_not_know_is_refused_by_name_if_it_has_images(tmp_path):
    data = load(dataset="test_labelled:two_splits")
    assert relabelled(data.splits["test"], data.classes, ("b", "c")).labels.tolist() == [0, 0]  # all are of b
    with pytest.raises(DataError, match=r"doesn't know a \(2 images\); its classes are b, c\n"):
        relabelled(data.splits["train"], data.classes, ("b", "c"))
    class_folders(tmp_path, 4, classes=("Dogs", "cat"))
    data = in_folder(tmp_path)
    with pytest.raises(DataError, match=r"Dogs \(2 images; did you mean dog\?\)"):
        relabelled(data.splits["all"], data.classes, ("dog", "cat"))


def test_records_are_whole(tmp_path):
    from trainer.commands.prepare import Options
    from trainer.data.records.prepare import prepare

    class_folders(tmp_path / "d", 30, classes=("b", "a"))
    for path in (tmp_path / "d").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    prepare(tmp_path / "d", tmp_path / "r", Options(shards=1))
    data = load(dataset="records", data_dir=str(tmp_path / "r"), validation_fraction=0.3)
    assert data.classes == ("a", "b") and {name: split.size for name, split in data.splits.items()} == {
        "train": 26, "validation": 4}  # as they were written
    images = np.concatenate([images for images, _ in data.splits["train"].chunks(30)])
    assert images.shape == (26, 32, 32, 3) and (images[..., 0] == images[..., 2]).all()
