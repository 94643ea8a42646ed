"""Class folders of images: what is read, what is refused, and that what is wrong changes nothing else."""

import dataclasses
import json
import os

import numpy as np
import pytest
from conftest import make_runtime
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import batches, class_folders, encode, figures, photo, png_header, turned
from PIL import Image

from trainer.config import Config
from trainer.data.images import folder_scan
from trainer.data.pipeline import evaluation_iterators, open_feed
from trainer.data.sources import folder
from trainer.errors import DataError, UsageError
from trainer.plan import Job, make_plan
from trainer.train.evaluation import Evaluator


@pytest.fixture
def data_dir(tmp_path):
    """40 figures to train on and 20 to test on."""
    class_folders(tmp_path / "data/train", 40)
    class_folders(tmp_path / "data/test", 20, split=1)
    return tmp_path / "data"


def load(data_dir, **more):
    return folder.load(Config(dataset="folder", data_dir=str(data_dir), model_dir="/none", **more))


def refusal(data_dir, **more):
    with pytest.raises(DataError) as caught:
        load(data_dir, **more)
    return str(caught.value)


def test_images_and_labels_are_what_the_files_hold(data_dir):
    data = load(data_dir)
    assert data.classes == tuple(sorted(folder_.name for folder_ in (data_dir / "train").iterdir()))
    assert data.image_shape == (32, 32, 3) and data.train.size == 40 and data.test.size == 20
    seen = [row for step in batches(data, epochs=1) for row in zip(*step, strict=True)]
    assert sorted(int(row[0]) for row in seen) == list(range(40)) and all(row[4] == 1 for row in seen)
    for example, _, image, label, _ in seen:
        path = data_dir / data.train.name_of(example)
        np.testing.assert_array_equal(image, np.asarray(Image.open(path)))
        assert data.classes[label] == path.parent.name


def test_shapes_are_known_beforehand(data_dir):
    """A shape that isn't would be compiled again and again."""
    data = load(data_dir)
    plan = make_plan(Config(batch_size=8), data.train.size, 2)
    feed = open_feed(Job(Config(batch_size=8), plan, make_runtime(2), data), first_step=0)
    assert feed.iterators[0].element_spec.images.shape == (4, 32, 32, 3)
    evaluation, _ = evaluation_iterators(data.test, make_runtime(1), per_replica_batch_size=6)
    assert evaluation[0].element_spec.images.shape == (6, 32, 32, 3)


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_see_the_same_batches(data_dir, replicas):
    for one, many in zip(batches(load(data_dir)), batches(load(data_dir), replicas), strict=True):
        for ours, theirs in zip(one, many, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "GIF"])
def test_all_kinds_of_files_and_endings_in_capitals(tmp_path, kind):
    ending = {"JPEG": "JPG"}.get(kind, kind)
    class_folders(tmp_path / "train", 20, ending, kind)
    class_folders(tmp_path / "test", 10, "Jpeg", "JPEG")
    seen = batches(load(tmp_path), batch_size=20)[0]
    wanted = figures(20)[0]
    difference = [min(np.abs(image.astype(int) - other).mean() for other in wanted) for image in seen[2]]
    assert max(difference) < 12 and all(seen[4] == 1)


def test_large_images_are_cut_and_turned_and_shrunk(tmp_path):
    """Against the slow way: decode all, turn, cut, shrink."""
    image = photo(300, 420)
    for number in range(1, 9):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(turned(image, number))
    (tmp_path / "train/a/9.png").write_bytes(encode(image))
    (tmp_path / "train/a/x.webp").write_bytes(encode(image, "WEBP", quality=95))
    (tmp_path / "test/a").mkdir(parents=True)
    (tmp_path / "test/a/1.png").write_bytes(encode(image))
    data = load(tmp_path, image_size=72)
    top, left, side = (300 - 262) // 2, (420 - 262) // 2, 262
    wanted = np.asarray(Image.fromarray(image[top:top + side, left:left + side]).resize((72, 72), Image.BILINEAR))
    (_, _, images, _, _), = batches(data, batch_size=10)
    assert images.shape == (10, 72, 72, 3)
    for shown in images:
        assert np.abs(shown.astype(int) - wanted).mean() < 4


def test_a_random_crop_is_a_function_of_seed_epoch_and_example(tmp_path):
    for number in range(8):
        path = tmp_path / ("test" if number % 4 == 0 else "train") / "ab"[number // 4] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photo(150 + 10 * number, 180, number), "JPEG"))
    one, two = (batches(load(tmp_path, image_size=80, augment=("crop",)), replicas, 6, 3.0) for replicas in (1, 2))
    for step, other in zip(one, two, strict=True):
        np.testing.assert_array_equal(step[2], other[2])
    first = {int(example): image for step in one[:1] for example, image in zip(step[0], step[2], strict=True)}
    later = {int(example): image for step in one[1:2] for example, image in zip(step[0], step[2], strict=True)}
    assert all((first[example] != later[example]).any() for example in first)


def damage(data_dir):
    """Damages four training images so that each is found in another way; returns their names."""
    victims = sorted((data_dir / "train").glob("*/*.png"))[::11]
    content = victims[1].read_bytes()
    victims[0].write_bytes(b"")
    victims[1].write_bytes(content[:-200])
    victims[2].write_bytes(png_header(30_000, 30_000))
    victims[3].write_bytes(b"nothing that one could see")
    return [str(path.relative_to(data_dir)) for path in victims]


def test_bad_images_are_named_with_what_is_wrong(data_dir):
    names = damage(data_dir)
    said = refusal(data_dir)
    # One of them is known only when it is decoded.
    assert "3 images or files can't be used; --max_bad_records is 0" in said and "--max_bad_records=3" in said
    for name, problem in ((names[0], "it is empty"), (names[2], "pixels"), (names[3], "it is not an image")):
        assert f"{name}: it" in said and problem in said
    data = load(data_dir, max_bad_records=3)
    batches(data)
    with pytest.raises(DataError) as caught:
        data.bad.check()
    assert f"{names[1]}: it can't be decoded" in str(caught.value)


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_is_borne_weighs_nothing_and_moves_nothing(data_dir, replicas):
    whole = batches(load(data_dir), replicas)
    names = damage(data_dir)
    data = load(data_dir, max_bad_records=4)
    for step, mask in zip(batches(data, replicas), whole, strict=True):
        bad = np.array([data.train.name_of(example) in names for example in step[0]])
        np.testing.assert_array_equal(step[0], mask[0])
        np.testing.assert_array_equal(step[3], mask[3])
        np.testing.assert_array_equal(step[2][~bad], mask[2][~bad])
        np.testing.assert_array_equal(step[4], ~bad)
        assert not step[2][bad].any()
    data.bad.check()
    assert data.bad.count == 4 and [line.split(":")[0] for line in data.bad.names()] == names


def test_a_step_with_images_that_are_known_to_be_bad_is_not_done_over(data_dir, monkeypatch):
    names = damage(data_dir)
    (data_dir / names[1]).write_bytes(b"")  # known from its header now, as the others are
    done_over = []
    monkeypatch.setattr("trainer.data.images.encoded_split.EncodedSplit._note",
                        lambda self, example: done_over.append(example))
    data = load(data_dir, max_bad_records=4)
    steps = batches(data)
    assert sum(int((step[4] == 0).sum()) for step in steps) >= 4 and not done_over
    assert not any(step[2][step[4] == 0].any() for step in steps)


@pytest.mark.slow
def test_a_test_split_with_bad_images_counts_the_others(data_dir, trainable):
    path = sorted((data_dir / "test").glob("*/*.png"))[3]
    path.write_bytes(path.read_bytes()[:-200])
    data = load(data_dir, max_bad_records=1)
    result = Evaluator(trainable(2).state.model, data.test, make_runtime(2), per_replica_batch_size=7).run()
    assert result.examples == 19 and len(result.class_accuracy) == 10
    assert sum(len(labels) for _, labels in data.test.chunks(6)) == 19
    iterators, steps = evaluation_iterators(data.test, make_runtime(1), per_replica_batch_size=6)
    assert sum(next(iterators[0]).unreadable.numpy().sum() for _ in range(steps)) == 1


def test_a_chunk_of_images_that_cannot_be_read_is_left_out(data_dir):
    for path in sorted((data_dir / "test").glob("*/*.png"))[:10]:
        path.write_bytes(path.read_bytes()[:-200])
    assert [len(labels) for _, labels in load(data_dir, max_bad_records=10).test.chunks(5)] == [5, 5]


def test_a_hostile_folder(tmp_path):
    class_folders(tmp_path / "train", 20)
    class_folders(tmp_path / "test", 20, split=1)
    inside = tmp_path / "train/circle"
    (inside / "notes.txt").write_text("not an image")
    (inside / ".DS_Store").write_text("junk")
    (inside / "gone.png").symlink_to("/nowhere/at/all.png")
    (inside / "circle").symlink_to(inside)
    os.mkfifo(inside / "pipe.png")
    (inside / "moving.gif").write_bytes(encode(Image.fromarray(photo(9, 9)), "GIF", save_all=True, append_images=[
        Image.fromarray(photo(9, 9, 1))]))
    (tmp_path / "train/stray.png").write_bytes(encode(photo(9, 9)))
    said = refusal(tmp_path)
    for words in ("6 images or files", "notes.txt: it doesn't end as image files do",
                  "gone.png: it is a link to nothing", "train/circle/circle: it is a link in a circle",
                  "pipe.png: it is not a regular file",
                  "moving.gif: it is animated",
                  "train/stray.png: it is not in a class folder"):
        assert words in said
    data = load(tmp_path, max_bad_records=6)
    assert data.train.size == 21 and data.image_shape == (32, 32, 3)


def run_folder(path):
    """What a run leaves, an image among it."""
    for name in ("checkpoints/step-00000007", "report", "tensorboard/train", "export"):
        (path / name).mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "log.txt").write_text("")
    (path / "report/samples.png").write_bytes(encode(photo(9, 9)))


@pytest.mark.parametrize("inside", ["train", "."])
@pytest.mark.parametrize("lay", [
    lambda root: run_folder(root / "runs/a"), lambda root: run_folder(root / "runs/sweep/b"),
    lambda root: run_folder(root / "work/runs/c") or (root / "work/model.py").write_text(""),
    lambda root: (root / "runs/fresh/.lock").mkdir(parents=True),
    lambda root: (root / "mine/ours").mkdir(parents=True),  # where the run was started
    lambda root: (root / "records").mkdir() or [(root / "records" / name).write_text("") for name in (
        "dataset.json", "train.index.npy", "train-00000-of-00001")],
    lambda root: (root / "env").mkdir() or class_folders(root / "env/lib", 2) and (
        root / "env/pyvenv.cfg").write_text(""),
    lambda root: (root / "__pycache__").mkdir()])
def test_what_programs_leave_among_the_images_is_no_data(tmp_path, monkeypatch, inside, lay):
    class_folders(tmp_path / "d" / inside, 40)
    before = load(tmp_path / "d")
    lay(tmp_path / "d")
    if (tmp_path / "d/mine").exists():
        monkeypatch.chdir(tmp_path / "d/mine/ours")
        (tmp_path / "d/mine/ours/notes.txt").write_text("")
    data = load(tmp_path / "d")
    assert (data.fingerprint, data.classes, data.warnings) == (before.fingerprint, before.classes, ())


def test_the_folder_of_this_run_is_no_data_before_anything_is_in_it(tmp_path, monkeypatch):
    class_folders(tmp_path, 40)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/folder-cnn3").mkdir(parents=True)
    data = folder.load(Config(dataset="folder", data_dir="."))
    assert "runs" not in data.classes and data.train.size == 30


def test_a_class_folder_may_be_where_a_run_is_started(data_dir, monkeypatch):
    before = load(data_dir)
    monkeypatch.chdir(data_dir / "train/star")
    assert load(data_dir).fingerprint == before.fingerprint


def test_a_run_does_not_write_among_classes(tmp_path):
    class_folders(tmp_path / "flat", 40)
    class_folders(tmp_path / "split/train", 40)
    assert folder.load(Config(dataset="folder", data_dir=f"{tmp_path}/split", model_dir=f"{tmp_path}/split")).train
    with pytest.raises(UsageError, match="--model_dir is the folder of the images"):
        folder.load(Config(dataset="folder", data_dir=f"{tmp_path}/flat", model_dir=f"{tmp_path}/flat/."))


def test_links_to_images_and_classes_are_followed(data_dir, tmp_path):
    linked = tmp_path / "linked"
    (linked / "train/all").mkdir(parents=True)
    for number, path in enumerate((data_dir / "train").glob("*/*.png")):
        (linked / "train/all" / f"{number}.png").symlink_to(path)
    (linked / "train/star").symlink_to(data_dir / "train/star")
    (linked / "test/all").parent.mkdir()
    (linked / "test/all").symlink_to(data_dir / "test/circle")
    data = load(linked)
    assert data.train.size == 44 and data.test.size == 2


def test_names_of_all_kinds(tmp_path):
    classes = [".net", "größe", "two words", "日本", "-rf", "it's"]
    images, _ = figures(6)
    for split_name in ("train", "test"):
        for name, image in zip(classes, images, strict=True):
            (tmp_path / split_name / name).mkdir(parents=True)
            (tmp_path / split_name / name / "a 1.png").write_bytes(encode(image))
    undecodable = os.fsencode(tmp_path / "train/.net") + b"/\xff\xfe.png"
    with open(undecodable, "wb") as file:
        file.write(encode(images[0]))
    data = load(tmp_path)
    assert data.classes == tuple(sorted(classes)) and data.train.size == 7
    (step,) = batches(data, batch_size=7)
    assert all(step[4] == 1) and json.dumps([data.train.name_of(example) for example in range(7)]).isascii()


def test_a_class_is_the_same_however_its_name_is_composed(data_dir):
    (data_dir / "train/circle").rename(data_dir / "train/rösti")
    (data_dir / "test/circle").rename(data_dir / "test/rösti")
    assert "rösti" in load(data_dir).classes


def test_a_class_whose_name_is_no_text_is_refused(data_dir):
    os.rename(os.fsencode(data_dir / "train/circle"), os.fsencode(data_dir) + b"/train/\xff")
    assert "is not Unicode" in refusal(data_dir)


@pytest.mark.parametrize("make, words", [
    (lambda root: None, "is not there"), (lambda root: root.write_text("x"), "must be a folder"),
    (lambda root: root.mkdir(), "no images in class folders"),
    (lambda root: class_folders(root / "train", 10) and (root / "test").mkdir(), "every class has a single image"),
    (lambda root: class_folders(root / "train", 20) and (root / "train/owl").mkdir(), "to train on of the class owl"),
    (lambda root: class_folders(root / "train", 10) and class_folders(root / "test/x"), "that train/ doesn't have")])
def test_a_folder_that_is_none(tmp_path, make, words):
    make(tmp_path / "d")
    assert words in refusal(tmp_path / "d")


def test_the_fingerprint_knows_what_changed(data_dir):
    before = load(data_dir)
    assert load(data_dir).fingerprint == before.fingerprint
    (data_dir / "train/star/00005.png").unlink()
    after = load(data_dir)
    assert after.fingerprint != before.fingerprint
    assert {name for name in before.parts if before.parts[name] != after.parts[name]} == {"train/star"}


def test_headers_are_read_once(data_dir, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    config = Config(dataset="folder", data_dir=str(data_dir), model_dir=str(run))
    first, read = folder.load(config), []
    read_header = folder_scan.pillow_reader.read_header
    monkeypatch.setattr(folder_scan.pillow_reader, "read_header",
                        lambda path: read.append(os.path.basename(path)) or read_header(path))
    assert folder.load(config).fingerprint == first.fingerprint and not read
    (data_dir / "train/star/00005.png").write_bytes(encode(photo(32, 32)))
    folder.load(config)
    assert read == ["00005.png"]
    assert folder.load(dataclasses.replace(config, model_dir="/none")).train.size == 40 and len(read) == 61


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=60), st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=8) | st.dictionaries(
        st.sampled_from(["root", "files", "a/1.png", "x"]), inner, max_size=4), max_leaves=12).map(json.dumps)))
def test_what_is_remembered_may_be_anything(tmp_path_factory, text):
    root = tmp_path_factory.mktemp("scan")
    (root / "a").mkdir()
    (root / "a/1.png").write_bytes(encode(figures(1)[0][0]))
    (root / "data_scan.json").write_text(text)
    assert folder_scan.scan(root / "a", root).images["1.png"].header.width == 32


@pytest.mark.long
@pytest.mark.slow
def test_a_hundred_thousand_files(tmp_path, monkeypatch):
    (tmp_path / "train/a").mkdir(parents=True), (tmp_path / "test/a").mkdir(parents=True)
    content = encode(figures(1)[0][0])
    class_folders(tmp_path / "train", 1, classes=("b",))
    (tmp_path / "test/a/0.png").write_bytes(content)
    for number in range(100_000):
        origin, path = (tmp_path / f"train/a/{name}.png" for name in (number // 50_000 * 50_000, number))
        if origin == path:
            path.write_bytes(content)  # a file system bears only so many names for one file
        else:
            os.link(origin, path)
    run = tmp_path / "run"
    run.mkdir()
    config = Config(dataset="folder", data_dir=str(tmp_path), model_dir=str(run))
    assert folder.load(config).train.size == 100_001
    monkeypatch.setattr(folder_scan.pillow_reader, "read_header", lambda path: pytest.fail("read again"))
    assert folder.load(config).train.size == 100_001
