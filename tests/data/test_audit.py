"""What `doctor --data` finds in real images: copies, leaks, odd images, and labels that are likely wrong."""

import dataclasses
import json

import numpy as np
import pytest
from image_files import encode
from in_process import command
from PIL import Image, ImageFilter

from trainer.commands.data_check import check
from trainer.config import Config
from trainer.data.audit import duplicates, traits
from trainer.data.dataset import load
from trainer.quality.predictions import Predictions
from trainer.quality.wrong_labels import likely_wrong

CLASSES = ("airplane", "automobile", "<b>bird & co", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN, TEST = 20, 6  # images of each class
ODDITIES = ("one_colour", "low_information", "dark", "bright", "blurry", "odd_size", "odd_aspect_ratio")


def real_images(folder, batch):
    """(images uint8 [10000, 32, 32, 3], labels) of a file of CIFAR-10."""
    rows = np.fromfile(folder / "cifar-10-batches-bin" / batch, np.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


def shifted(image):
    return np.concatenate([image[:, :1], image[:, :-1]], 1)


def changed(image, change):
    return np.asarray(change(Image.fromarray(image)))


@pytest.fixture
def planted(tmp_path, cifar10):
    """A folder of 260 real images with what is planted among them."""
    images, labels = real_images(cifar10, "data_batch_1.bin")
    by_class = [images[labels == label] for label in range(10)]
    tests, test_labels = real_images(cifar10, "test_batch.bin")
    test_by_class = [tests[test_labels == label] for label in range(10)]
    others = real_images(cifar10, "data_batch_2.bin")[0]
    steepest = others[others[:200].std((1, 2, 3)).argmax()]

    def write(name, image, kind="PNG", **options):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image, kind, **options))

    for label, name in enumerate(CLASSES):
        for number in range(TRAIN):
            write(f"train/{name}/{number}.png", by_class[label][number])
        for number in range(TEST):
            write(f"test/{name}/{number}.png", test_by_class[label][number])
    write("train/ship/leak.png", test_by_class[8][0])
    write("train/cat/other label.png", by_class[5][1])
    write("train/dog/twice.png", by_class[5][2])
    write("train/frog/jpeg.jpg", by_class[6][0], "JPEG", quality=60)
    write("train/truck/shifted.png", shifted(test_by_class[9][0]))
    write("train/deer/brighter.png", np.minimum(test_by_class[4][0] * 1.25 + 12, 255).astype(np.uint8))
    write(f"train/{CLASSES[2]}/black.png", np.zeros((32, 32, 3), np.uint8))
    write("train/horse/dark.png", steepest // 5)
    write("train/horse/bright.png", 232 + others[:200][others[:200].std((1, 2, 3)).argsort()[-2]] // 12)
    write("train/horse/grey.png", 120 + others[1] // 60)
    write("train/horse/blurred.png", changed(others[2], lambda image: image.filter(ImageFilter.GaussianBlur(2))))
    write("train/horse/large.png", changed(others[3], lambda image: image.resize((160, 160), Image.Resampling.NEAREST)))
    write("train/horse/long.png", changed(others[4], lambda image: image.resize((112, 32), Image.Resampling.NEAREST)))
    return tmp_path / "data"


def doctor(folder, *words):
    return command("doctor", "--data", "--dataset=folder", f"--data_dir={folder}", *words, encoding="utf-8")


def names(found):
    return [image["name"].partition("/")[2].replace(CLASSES[2], "bird") for image in found]


def test_what_is_planted_among_real_images_is_found_and_nothing_else(planted, tmp_path):
    done = doctor(planted, "--json", f"--out={tmp_path / 'page.html'}")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["images_read"] == 10 * (TRAIN + TEST) + 13 and found["unusable"] == []
    same = {tuple(names(group["images"])): (group["across_splits"], group["several_labels"], group["distance"])
            for group in found["same_pixels"]}
    assert same == {("ship/leak.png", "ship/0.png"): (True, False, None),
                    ("dog/2.png", "dog/twice.png"): (False, False, None),
                    ("cat/other label.png", "dog/1.png"): (False, True, None)}
    near = {tuple(names(group["images"])): group["across_splits"] for group in found["nearly_same_pixels"]}
    assert near == {("frog/0.png", "frog/jpeg.jpg"): False, ("deer/brighter.png", "deer/0.png"): True,
                    ("truck/shifted.png", "truck/0.png"): True}
    assert {kind: names(found[kind]) for kind in ODDITIES} == {
        "one_colour": ["bird/black.png"], "low_information": ["horse/grey.png"], "dark": ["horse/dark.png"],
        "bright": ["horse/bright.png"], "blurry": ["horse/blurred.png"], "odd_size": ["horse/large.png"],
        "odd_aspect_ratio": ["horse/long.png"]}
    assert found["likely_wrong_labels"] == [] and found["not_compared"] == []
    assert "273 images read: all of them can be used" in done.err and done.err.count("warning: a leak") == 2
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 2 * 6 + 7 and "<b>bird" not in page and "&lt;b&gt;bird &amp; co/black.png" in page
    assert page.count('src="data:image/png') == page.count("<img")


def test_it_is_told_in_sentences_and_the_exit_code_stays_0(planted, monkeypatch):
    monkeypatch.setattr(check, "say_reading_speed", lambda split: None)
    done = doctor(planted)
    assert done.code == 0
    assert ("warning: a leak: 1 group of images with the same pixels in more than one split, 1 of train, 1 of test: "
            "the accuracy on such images says nothing of new ones: train/ship/leak.png (train, ship) = test/ship/0.png "
            "(test, ship); remove them from one split") in done.out
    assert ("1 group of images with the same pixels under more than one label: train/cat/other label.png (train, "
            "cat) = train/dog/1.png (train, dog)") in done.out
    assert "1 of 273 images are blurred" in done.out and "train/horse/blurred.png (train, horse)" in done.out


def test_what_is_unusable_still_ends_with_65_after_the_rest_is_told(planted):
    (planted / "train/cat/broken.png").write_bytes((planted / "train/cat/0.png").read_bytes()[:-100])
    done = doctor(planted)
    assert done.code == 65 and "1 images or files can't be used" in done.err and "broken.png" in done.err
    assert "warning: a leak" in done.out
    done = doctor(planted, "--json")
    assert done.code == 65 and "broken.png" in json.loads(done.out)["unusable"][0]


def test_a_sample_is_spread_over_the_data(planted, monkeypatch):
    monkeypatch.setattr(check, "say_reading_speed", lambda split: None)
    done = doctor(planted, "--images=50")
    assert done.code == 0 and "50 of 273 images read: all of these can be used" in done.out


def table_of(images):
    return np.array([traits.traits_of(image) for image in images], traits.ROW)


def rows_of(groups):
    return [group.rows.tolist() for group in groups]


def test_the_same_groups_are_found_block_by_block(cifar10, monkeypatch):
    images, _ = real_images(cifar10, "test_batch.bin")
    table, splits = table_of([*images[:998], images[7], shifted(images[8])]), np.repeat([0, 1], 500)
    assert rows_of(duplicates.same_pixels(table)) == [[7, 998]]
    whole = duplicates.nearly_same_pixels(table, splits)
    assert rows_of(whole.groups) == [[8, 999]] and not whole.left_out, "of half a million pairs"
    monkeypatch.setattr(duplicates, "_ROWS", 64)
    monkeypatch.setattr(duplicates, "_COLUMNS", 100)
    assert rows_of(duplicates.nearly_same_pixels(table, splits).groups) == [[8, 999]]


def test_leaks_are_looked_for_first_where_images_are_too_many(cifar10, monkeypatch):
    images, _ = real_images(cifar10, "test_batch.bin")
    table = table_of([*images[:98], shifted(images[8]), shifted(images[9])])
    splits = np.repeat([0, 1], 50)
    splits[98] = 0  # that pair lies within a split, the other in both
    monkeypatch.setattr(duplicates, "_MOST_COMPARISONS", 51 * 49)
    few = duplicates.nearly_same_pixels(table, splits)
    assert rows_of(few.groups) == [[9, 99]] and few.left_out == [(1, 1), (0, 0)]
    monkeypatch.undo()
    assert sorted(rows_of(duplicates.nearly_same_pixels(table, splits).groups)) == [[8, 98], [9, 99]]
    monkeypatch.setattr(duplicates, "_MOST_PAIRS", 0)
    assert duplicates.nearly_same_pixels(table, splits).left_out == [(0, 1), (1, 1), (0, 0)]


def test_data_that_is_alike_as_a_whole_is_told_so(tmp_path, cifar10, monkeypatch):
    monkeypatch.setattr(check, "say_reading_speed", lambda split: None)
    for number, image in enumerate(real_images(cifar10, "test_batch.bin")[0][:10]):
        for split, kind in (("train", "PNG"), ("test", "JPEG")):
            path = tmp_path / split / f"class {number % 2}" / f"{number}.{kind.lower()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image, kind))
    done = doctor(tmp_path)
    assert done.code == 0 and "10 groups of images with nearly the same pixels in more than one split" in done.out
    assert "warning: 100% of the images look nearly like another" in done.out


def linear_model(images, labels, others):
    """What softmax regression on 8 × 8 pixels, fitted in 300 steps, says of other images: float [n, classes]."""
    def features(of):
        small = of.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)).reshape(len(of), -1) / 255
        return np.concatenate([small - 0.5, np.ones((len(of), 1))], 1)

    def answers(x):
        values = np.exp(x @ weights - (x @ weights).max(1, keepdims=True))
        return values / values.sum(1, keepdims=True)

    x, target = features(images), np.eye(labels.max() + 1)[labels]
    weights = np.zeros((x.shape[1], target.shape[1]))
    for _ in range(300):
        weights -= 0.5 * x.T @ (answers(x) - target) / len(x)
    return answers(features(others))


@pytest.fixture
def doubtful(tmp_path, cifar10):
    """(a folder of real frogs and ships, a run's folder, the names of the 8 test images with the wrong label)."""
    wanted = {6: 0, 8: 1}
    images, labels = real_images(cifar10, "data_batch_1.bin")
    chosen = np.isin(labels, list(wanted))
    images, labels = images[chosen], np.vectorize(wanted.get)(labels[chosen])
    train, test = slice(0, 1200), slice(1200, 1400)
    wrong = [number for label in (0, 1) for number in np.flatnonzero(labels[test] == label)[:4].tolist()]
    given = labels[test].copy()
    given[wrong] = 1 - given[wrong]
    folder = tmp_path / "data"
    for number, label in enumerate(given.tolist()):
        path = folder / "test" / ("frog", "ship")[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(images[test][number]))
    for number in range(20):
        path = folder / "train" / ("frog", "ship")[labels[number]] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(images[number]))
    said = linear_model(images[train], labels[train], images[test])
    config = Config(dataset="folder", data_dir=str(folder), model_dir=str(tmp_path / "run"))
    data = load(config)
    order = [int(data.test.name_of(row)[-7:-4]) for row in range(data.test.size)]
    write_run(tmp_path / "run", config, data, said[order])
    return folder, tmp_path / "run", {f"{number:03}.png" for number in wrong}


def write_run(folder, config, data, said):
    """A run's folder with what it says of the test split."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"given": dataclasses.asdict(config), "data": {
        "fingerprint": data.fingerprint, "classes": list(data.classes), "image_shape": list(data.image_shape),
        "parts": data.parts}}))
    labels = data.test.labels
    rank = (said > said[np.arange(len(said)), labels][:, None]).sum(1)
    Predictions("test", 1, data.classes, np.arange(len(said)), labels, said.argmax(1).astype(np.int32),
                said.max(1).astype(np.float32), rank.astype(np.int32), said.astype(np.float32)
                ).write(folder / "predictions.npz")


def test_planted_wrong_labels_are_doubted_first(doubtful, tmp_path, monkeypatch):
    folder, run, wrong = doubtful
    done = command("doctor", "--data", f"--model_dir={run}", "--json", f"--out={tmp_path / 'page.html'}")
    assert done.code == 0, done.err
    doubted = json.loads(done.out)["likely_wrong_labels"]
    first = {label["name"].rpartition("/")[2] for label in doubted[:16]}
    assert len(wrong & first) >= 7, "of 8"
    assert len(doubted) < 30, "of 200 labels, by a model that is right in nine of ten"
    assert {(label["class"], label["suggested"]) for label in doubted} == {("frog", "ship"), ("ship", "frog")}
    assert [label["probability"] - label["suggested_probability"] for label in doubted] == sorted(
        label["probability"] - label["suggested_probability"] for label in doubted)
    page = (tmp_path / "page.html").read_text()
    assert "Labels that are likely wrong" in page and ("frog → ship" in page or "ship → frog" in page)
    monkeypatch.setattr(check, "say_reading_speed", lambda split: None)
    done = command("doctor", "--data", f"--model_dir={run}")
    assert f"{len(doubted)} of 200 labels of the test split are likely wrong" in done.out


def test_predictions_of_other_data_are_refused(doubtful):
    folder, run, _ = doubtful
    done = command("doctor", "--data", f"--model_dir={run}", "--dataset=csv")
    assert done.code == 64 and "--dataset=folder; received --dataset=csv" in done.err
    (folder / "test/frog/000.png").unlink(missing_ok=True)
    (folder / "test/ship/000.png").unlink(missing_ok=True)
    done = command("doctor", "--data", f"--model_dir={run}")
    assert done.code == 65 and "leave --model_dir out" in done.err
    (run / "predictions.npz").unlink()
    (run / "config.json").unlink()
    assert command("doctor", "--data", f"--model_dir={run}").code == 65


def test_a_label_is_doubted_where_another_class_reaches_its_own_threshold():
    """Thresholds: 0.7 for class 0, 0.6 for class 1; class 2 has no examples, and is never suggested."""
    said = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.4, 0.6, 0], [0.2, 0.6, 0.2], [0.3, 0.7, 0], [0.5, 0.5, 0],
                     [0.05, 0.05, 0.9], [np.nan, 1, 0]])
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    thresholds = said[:3, 0].mean(), said[3:7, 1].mean()
    assert thresholds == pytest.approx((0.7, 0.4625))
    found = likely_wrong(said, labels)
    assert found.rows.tolist() == [2] and found.suggested.tolist() == [1]
    assert found.margins == pytest.approx([-0.2])
    assert not len(likely_wrong(np.zeros((0, 3)), np.zeros(0, int)).rows)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 500, 3), (40, 30, 4), (28, 28, 1), (64, 64, 6)])
def test_images_of_any_shape_have_traits(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    row = np.array([traits.traits_of(image)], traits.ROW)[0]
    assert (row["height"], row["width"]) == shape[:2] and row["least"] == image.min()
    assert traits.traits_of(image)[0] == traits.traits_of(image.copy())[0] and traits.ROW.itemsize == 126
