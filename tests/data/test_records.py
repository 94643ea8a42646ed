"""TFRecord shards with an index: written, read lane by lane, damaged; and those of others."""

import contextlib
import hashlib
import json
import re
import shutil
import types
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import batches, class_folders, encode, figures, photo, turned
from PIL import Image

from trainer.commands import doctor
from trainer.commands.data_check import reading_speed
from trainer.config import Config
from trainer.data import order
from trainer.data.records import external_shards, index, shards
from trainer.data.records.prepare import prepare
from trainer.data.records.shard_names import find_shards
from trainer.data.sources import records
from trainer.errors import DataError, StorageError, UsageError
from trainer.process import host
from trainer.storage.folder_lock import FolderLock


def options(**more):
    return types.SimpleNamespace(**{"validation_fraction": None, "resize_shorter": 0, "shards": 0,
                                    "max_bad_records": 0, **more})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """90 figures to train on and 30 to test on, in class folders."""
    root = tmp_path_factory.mktemp("images")
    class_folders(root / "train", 90)
    class_folders(root / "test", 30, split=1)
    return root


@pytest.fixture(scope="module")
def made(images, tmp_path_factory):
    """They as records, in 3 shards and 1."""
    out = tmp_path_factory.mktemp("records")
    prepare(images, out, options(shards=3))
    return out


@pytest.fixture
def copy(made, tmp_path):
    """Records to be damaged."""
    return shutil.copytree(made, tmp_path / "records")


def load(folder, **more):
    return records.load(Config(dataset="records", data_dir=str(folder), **more))


def test_doctor_says_how_fast_they_are_read(made, capsys, monkeypatch):
    monkeypatch.setattr(reading_speed, "READ_SECONDS", 0.1)
    doctor.run(doctor.Options(data=True, dataset="records", data_dir=str(made)))
    told = re.search(r"reads about ([\d,]+) images/s with (\d+) cores, ([\d,]+) a core", capsys.readouterr().out)
    whole, cores, a_core = (int(number.replace(",", "")) for number in told.groups())
    assert whole > 100 and cores == host.cores() and abs(whole - cores * a_core) <= cores


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_records_hold_the_images(images, made):
    data = load(made)
    assert data.train.size == 90 and data.test.size == 30 and data.image_shape == (32, 32, 3)
    wanted = {(np.asarray(Image.open(path)).tobytes(), path.parent.name) for path in images.glob("train/*/*.png")}
    seen = {(image.tobytes(), data.classes[label]) for step in batches(data, batch_size=9)
            for image, label in zip(step[2], step[3], strict=True)}
    assert seen == wanted and len(wanted) == 90
    assert sum(len(labels) for _, labels in data.test.chunks(7)) == 30


def test_other_tools_can_read_them(made):
    """As TensorFlow's own ImageNet readers do: labels count from 1."""
    classes = json.loads((made / "dataset.json").read_text())["classes"]
    features = {**{name: tf.io.FixedLenFeature([], tf.string) for name in ("image/encoded", "image/class/text")},
                **{name: tf.io.FixedLenFeature([], tf.int64) for name in ("image/class/label", "image/height")}}
    files = sorted(map(str, made.glob("train-*-of-*")))
    assert len(files) == 3
    for record in tf.data.TFRecordDataset(files):
        example = tf.io.parse_single_example(record, features)
        assert tf.io.decode_image(example["image/encoded"]).shape == (32, 32, 3) and example["image/height"] == 32
        assert classes[example["image/class/label"] - 1] == example["image/class/text"].numpy().decode()


def test_a_second_run_writes_the_same_bytes(images, made, tmp_path):
    prepare(images, tmp_path / "again", options(shards=3))
    assert content(tmp_path / "again") == content(made)
    assert "nothing to do" in prepare(images, tmp_path / "again", options(shards=3))
    with pytest.raises(UsageError, match="holds another data set, or one that was prepared with other flags"):
        prepare(images, tmp_path / "again", options(shards=2))


def test_classes_are_mixed_and_shards_are_alike(made):
    _, splits, _ = index.read(made)
    rows = splits["train"].rows
    assert [shard["examples"] for shard in splits["train"].shards] == [30, 30, 30]
    assert len(set(rows["label"][:10])) >= 5


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_see_the_same_batches(made, replicas):
    for one, many in zip(batches(load(made), 1, 8, 2.5), batches(load(made), replicas, 8, 2.5), strict=True):
        for ours, theirs in zip(one, many, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def damage_a_record(copy):
    """Flips a bit in record 40 of the training split, so that the shard's own check doesn't see it first."""
    _, splits, _ = index.read(copy)
    row = splits["train"].rows[40]
    path = copy / splits["train"].shards[row["shard"]]["file"]
    flip(path, int(row["offset"]) + 70)
    described = json.loads((copy / "dataset.json").read_text())
    described["splits"]["train"]["shards"][1]["edges_sha256"] = index.edges_sha256(path)  # these shards are all edge
    (copy / "dataset.json").write_text(json.dumps(described))
    return path


def test_large_records_are_the_same_images_and_faults(copy, monkeypatch):
    damage_a_record(copy)
    seen = []
    for large in (2**18, 0):
        monkeypatch.setattr(records, "_LARGE", large)
        data = load(copy, image_size=16, max_bad_records=1)
        steps = batches(data, batch_size=10)
        assert data.bad.count == 1
        seen.append([np.concatenate([np.asarray(step[part]) for step in steps]) for part in range(5)])
    assert len(seen[0][0]) >= 80 and (seen[0][4] == 0).sum() == 1
    for by_the_step, in_turn in zip(*seen, strict=True):
        assert np.array_equal(by_the_step, in_turn)


def test_every_record_once_an_epoch_lane_by_lane(made):
    data = load(made, lanes=4)
    order = data.train.order(0, 8)
    for epoch in range(3):
        ids = order.stream(90 * epoch, 90 * (epoch + 1))[0]
        assert sorted(ids) == list(range(90))
    assert order.stream(0, 2)[0].max() < 30 and order.stream(6, 8)[0].min() > 60


def test_a_worker_opens_only_the_files_of_its_lanes(images, tmp_path, monkeypatch):
    prepare(images, tmp_path / "out", options(shards=9))
    opened, file = set(), records._File
    monkeypatch.setattr(records, "_File", lambda path: opened.add(path[-14:]) or file(path))
    data = load(tmp_path / "out", lanes=6)
    ids, _ = order.batches(data.train.order(0, 18), 18, 3, 1, 0, 5)  # the second of three
    assert all(len(image) > 50 for image in data.train.fetch(ids.ravel()))
    assert opened == {f"0000{number}-of-00009" for number in (3, 4, 5)}


def test_odd_images_are_encoded_again_so_that_anybody_reads_them_right(tmp_path):
    image = photo(40, 60)
    (tmp_path / "d/train/a").mkdir(parents=True)
    files = {"1.jpg": turned(image, 6), "2.webp": encode(image, "WEBP", lossless=True), "3.bmp": encode(image, "BMP"),
             "4.jpg": encode(Image.fromarray(image).convert("CMYK"), "JPEG", quality=97),
             "5.jpg": encode(image, "JPEG"), "6.png": encode(Image.fromarray(image).convert("RGBA"))}
    for name, data in files.items():
        (tmp_path / "d/train/a" / name).write_bytes(data)
    shutil.copytree(tmp_path / "d/train/a", tmp_path / "d/train/b")
    shutil.copytree(tmp_path / "d/train", tmp_path / "d/test")
    prepare(tmp_path / "d", tmp_path / "out", options())
    _, splits, _ = index.read(tmp_path / "out")
    for record in tf.data.TFRecordDataset(str(tmp_path / "out/train-00000-of-00001")).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        encoded, name = (features[key].bytes_list.value[0] for key in ("image/encoded", "image/filename"))
        assert np.abs(tf.io.decode_image(encoded, 3).numpy().astype(int) - image).mean() < 6
        assert (encoded == files["5.jpg"]) == (name in {b"train/a/5.jpg", b"train/b/5.jpg"})
    assert (splits["train"].rows["orientation"] == 1).all()


def test_images_are_shrunk(tmp_path):
    for number in range(20):
        path = tmp_path / "d" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photo(50, 100 + number, number), "JPEG"))
    prepare(tmp_path / "d", tmp_path / "out", options(resize_shorter=25, validation_fraction=0.3))
    rows = index.read(tmp_path / "out")[1]["train"].rows
    assert (rows["height"] == 25).all() and rows["width"].min() >= 50


def test_all_that_is_wrong_is_listed_at_once_and_can_be_left_out(tmp_path):
    paths = class_folders(tmp_path / "d/train", 40)
    class_folders(tmp_path / "d/test", 20, split=1)
    for path in paths[:13]:
        path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "d/train/circle/notes.txt").write_text("no image")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "d", tmp_path / "out", options())
    for path in paths[:13]:
        assert str(path.relative_to(tmp_path / "d")) in str(caught.value)
    assert "14 images or files can't be used" in str(caught.value) and "notes.txt" in str(caught.value)
    assert not (tmp_path / "out/dataset.json").exists()
    assert "left out: 14" in prepare(tmp_path / "d", tmp_path / "out", options(max_bad_records=14))
    assert load(tmp_path / "out").train.size == 27
    assert len(json.loads((tmp_path / "out/dataset.json").read_text())["left_out"]) == 14


def test_finished_shards_are_not_written_again(images, made, tmp_path, monkeypatch):
    def fails(path, sources, resize_shorter):
        if "00001" in path.name:
            raise StorageError("the disk is full", "make room")
        return write(path, sources, resize_shorter)

    write, written = shards.write_shard, []
    monkeypatch.setattr(shards, "write_shard", fails)
    with pytest.raises(StorageError):
        prepare(images, tmp_path / "out", options(shards=3))
    monkeypatch.setattr(shards, "write_shard",
                        lambda path, *rest: written.append(path.name) or write(path, *rest))
    done = {path.name for path in (tmp_path / "out/.work").glob("*.json")}
    prepare(images, tmp_path / "out", options(shards=3))
    assert len(written) + len(done) == 4 and not {f"{name}.json" for name in written} & done
    assert content(tmp_path / "out") == content(made)


def test_two_at_once_is_refused(images, tmp_path):
    lock = FolderLock(tmp_path)
    lock.take()
    from trainer.errors import BusyError

    with pytest.raises(BusyError):
        prepare(images, tmp_path, options())
    lock.give_back()


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_named_with_shard_and_record(copy):
    path = damage_a_record(copy)
    data = load(copy, max_bad_records=0)
    steps = batches(data, batch_size=10)
    with pytest.raises(DataError) as caught:
        data.bad.check()
    assert f"{path}, record 10: its record is not what was written: its CRC differs" in str(caught.value)
    borne = load(copy, max_bad_records=1)
    steps = batches(borne, batch_size=10)
    borne.bad.check()
    assert sum(int((step[4] == 0).sum()) for step in steps) == 1


@pytest.mark.parametrize("damage, words", [
    (lambda root: (root / "train-00001-of-00003").unlink(), "cannot read the shard .*train-00001-of-00003"),
    (lambda root: flip(root / "train-00001-of-00003", 100), "shard .*train-00001-of-00003 is not the one"),
    (lambda root: (root / "train-00002-of-00003").write_bytes(b"x"), "it has 1 bytes, not"),
    (lambda root: (root / "train-00000-of-00003").rename(root / "t") and shutil.copy(
        root / "train-00001-of-00003", root / "train-00000-of-00003"), "is not the one that the index was made of"),
    (lambda root: (root / "dataset.json").unlink(), "has no dataset.json.*prepare --data_dir"),
    (lambda root: (root / "dataset.json").write_text("{"), "can't be used"),
    (lambda root: (root / "dataset.json").write_text('{"format": 1}'), "can't be used"),
    (lambda root: flip(root / "train.index.npy", 300), "its SHA-256 differs"),
    (lambda root: (root / "test.index.npy").unlink(), "test.index.npy can't be used")])
def test_what_is_damaged_is_named_before_anything_starts(copy, damage, words):
    damage(copy)
    with pytest.raises(DataError, match="(?s)" + words):
        load(copy)


def rewrite(root, **columns):
    """Writes other values into the first row of the train index, and its hash into dataset.json."""
    rows = np.load(root / "train.index.npy")
    for name, value in columns.items():
        rows[name][0] = value
    np.save(root / "train.index.npy", rows)
    described = json.loads((root / "dataset.json").read_text())
    content = (root / "train.index.npy").read_bytes()
    described["splits"]["train"]["index"]["sha256"] = hashlib.sha256(content).hexdigest()
    (root / "dataset.json").write_text(json.dumps(described))


def test_an_image_that_is_larger_than_its_index_says_is_not_decoded(copy):
    """However small an index says that it is: what it would take is known before."""
    rewrite(copy, width=16, height=16)
    data = load(copy, max_bad_records=1)
    batches(data, batch_size=10)
    assert data.bad.names()[0].endswith("record 0: its header says 32 × 32 pixels, the index 16 × 16")


@pytest.mark.parametrize("columns", [
    {"offset": 2**63}, {"offset": 2**64 - 1, "length": 100}, {"length": 2**32 - 1}, {"width": 2**31, "height": 2**31},
    {"width": 20_000, "height": 20_000}, {"width": 0}, {"kind": 9}, {"orientation": 0}, {"orientation": 77}])
def test_a_row_that_its_shard_does_not_explain_is_refused(copy, columns):
    rewrite(copy, **columns)
    with pytest.raises(DataError, match="row 0 of train.index.npy describes no image of its shard"):
        load(copy)


@pytest.mark.parametrize("row", ["-1", "999999", "18446744073709551616"])
def test_a_problem_with_a_row_that_is_not_there_is_refused(copy, row):
    described = json.loads((copy / "dataset.json").read_text())
    described["splits"]["train"]["problems"] = {row: "odd"}
    (copy / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="rows that train.index.npy does not have"):
        load(copy)


@pytest.mark.parametrize("file", ["/etc/passwd", "../../secret", "/dev/zero", "..", "/proc/self/environ"])
def test_an_index_names_no_other_files(copy, file):
    described = json.loads((copy / "dataset.json").read_text())
    described["splits"]["train"]["shards"][0]["file"] = file
    (copy / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="as a shard, which is"):
        load(copy)


NAMES = st.sampled_from(["classes", "splits", "train", "test", "shards", "index", "file", "bytes", "examples", "sha256",
                         "problems"])


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
                    max_leaves=10),
       st.sampled_from([("classes",), ("splits",), ("splits", "train"), ("splits", "test", "shards"),
                                     ("splits", "train", "index"), ("splits", "train", "problems"), ("version",)]))
def test_an_index_may_hold_anything(made, tmp_path_factory, value, where):
    described = json.loads((made / "dataset.json").read_text())
    inner = described
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    root = tmp_path_factory.mktemp("index")
    for path in made.iterdir():
        if path.is_file() and path.name != "dataset.json":
            (root / path.name).symlink_to(path)
    (root / "dataset.json").write_text(json.dumps(described))
    with contextlib.suppress(DataError):
        index.read(root)


def test_the_fingerprint_knows_which_shard_changed(images, made, tmp_path):
    changed = shutil.copytree(images, tmp_path / "changed")
    path = sorted(changed.glob("train/*/*.png"))[0]
    path.write_bytes(encode(photo(32, 32)))
    prepare(changed, tmp_path / "out", options(shards=3))
    before, after = load(made), load(tmp_path / "out")
    assert before.fingerprint != after.fingerprint
    assert sum(before.parts[name] != after.parts[name] for name in before.parts) == 1


def example(**features):
    def feature(value):
        values = value if isinstance(value, list) else [value]
        return (tf.train.Feature(bytes_list=tf.train.BytesList(value=values)) if isinstance(values[0], bytes) else
                tf.train.Feature(float_list=tf.train.FloatList(value=values)) if isinstance(values[0], float) else
                tf.train.Feature(int64_list=tf.train.Int64List(value=values)))

    return tf.train.Example(features=tf.train.Features(feature={
        name.replace("__", "/"): feature(value) for name, value in features.items()})).SerializeToString()


def write_foreign(folder, name, shards, count, make, split=0):
    folder.mkdir(exist_ok=True)
    images, labels = figures(count, split)
    for number in range(shards):
        with tf.io.TFRecordWriter(str(folder / f"{name}-{number:05d}-of-{shards:05d}")) as writer:
            for image, label in list(zip(images, labels, strict=True))[number::shards]:
                writer.write(make(encode(image), int(label)))
    return images, labels


@pytest.mark.parametrize("names, make, classes", [
    (("train", "validation"), lambda data, label: example(
        image__encoded=data, image__class__label=label + 1, image__class__text=f"class {label}".encode()),
     tuple(f"class {label}" for label in range(10))),
    (("shapes-train.tfrecord", "shapes-test.tfrecord"), lambda data, label: example(image=data, label=label),
     tuple("abcdefghij"))])
def test_records_of_others(tmp_path, names, make, classes):
    if make(b"", 0) == example(image=b"", label=0):
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs/label.labels.txt").write_text("\n".join(classes) + "\n")
    images, labels = write_foreign(tmp_path / "theirs", names[0], 2, 50, make)
    write_foreign(tmp_path / "theirs", names[1], 1, 20, make, split=1)
    before = content(tmp_path / "theirs")
    said = external_shards.make_index(tmp_path / "theirs", tmp_path / "ours")
    assert f"index of 50 train, 20 {'validation' if 'validation' in names else 'test'} images in 3 shards" in said
    assert content(tmp_path / "theirs") == before
    data = load(tmp_path / "ours")
    assert data.classes == classes
    wanted = {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
    assert {(image.tobytes(), int(label)) for step in batches(data, batch_size=10)
            for image, label in zip(step[2], step[3], strict=True)} == wanted


FEW = figures(20)  # two of each class


def write_shard(path, images, labels, make=lambda data, label: example(image=data, label=label)):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label in zip(images, labels, strict=True):
            writer.write(make(encode(image), int(label)))


@pytest.mark.parametrize("names", [
    ["train.tfrecord"], ["TRAIN.TFRecords"], ["train.tfrec"], ["foo_train.tfrecord"], ["foo.train.record"],
    ["train-00000-of-00002", "train-00001-of-00002"], ["tf_flowers-train.tfrecord-00000-of-00001"],
    ["dataset-train.tfrecord-00000-of-00002", "dataset-train.tfrecord-00001-of-00002"],
    ["foo_train.tfrecord-00000-of-00001"], ["training_0.tfrecord", "training_1.tfrecord"],
    ["train00-10.tfrec", "train01-10.tfrec"], ["train_00000_of_00001.tfrecord"], ["train-00000-of-00001.tfrecord"],
    ["train/00-224x224-798.tfrec", "train/01-224x224-12.tfrec"], ["Training/part-00000-of-00001"],
    ["flowers.tfrecord"], ["cats.tfrecord", "dogs.tfrecord"],
    ["flowers-00000-of-00002.tfrecord", "flowers-00001-of-00002.tfrecord"]])
def test_a_train_split_alone_is_found_and_a_tenth_held_back(tmp_path, names):
    for place, name in enumerate(names):
        write_shard(tmp_path / "t" / name, *(part[place::len(names)] for part in FEW))
    for out in (tmp_path / "t", tmp_path / "o"):
        assert f"index of 20 train images in {len(names)} shards" in external_shards.make_index(tmp_path / "t", out)
        data = load(out)
        assert (data.train.size, data.validation.size, data.test, data.held_back) == (10, 10, None, True)
        assert np.bincount(data.train.labels).tolist() == [1] * 10


@pytest.mark.parametrize("names, found", [
    (("train.tfrecord", "validation.tfrecord"), "train validation"), (("a_train.tfrec", "a_test.tfrec"), "train test"),
    (("train/a.tfrec", "val/a.tfrec"), "train validation"),
    (("train-00000-of-00001", "dev.tfrecord"), "train validation"),
    (("x-train.tfrecord-00000-of-00001", "x-eval.tfrecord-00000-of-00001"), "train test")])
def test_other_splits_are_found_under_such_names(tmp_path, names, found):
    for name in names:
        write_shard(tmp_path / name, *FEW)
    external_shards.make_index(tmp_path, tmp_path / "out")
    data = load(tmp_path / "out")
    assert " ".join(data.splits) == found and data.train.size == 20 and not data.held_back


def test_a_shard_that_says_no_split_is_named(tmp_path, capsys):
    for name in ("a-train.tfrecord-00000-of-00001", "a-extra.tfrecord-00000-of-00001"):
        write_shard(tmp_path / name, *FEW)
    external_shards.make_index(tmp_path, tmp_path)
    assert "not used, because their names say no split: a-extra.tfrecord-00000-of-00001" in capsys.readouterr().err


@pytest.mark.parametrize("names, words, fix", [
    (["train.tfrecord.gz"], "train.tfrecord.gz is compressed", "gunzip "),
    (["train-00000-of-00002.gz", "train-00001-of-00002.gz"], "00002.gz is compressed", "gunzip "),
    (["train/a.tfrec.bz2"], "a.tfrec.bz2 is compressed", "bunzip2 "),
    (["m-train.array_record-00000-of-00001"], "is not a TFRecord; ArrayRecord", "file_format='tfrecord'"),
    (["train.tfrecord", "train-00000-of-00001"], "two sets of train shards", "elsewhere"),
    (["mnist_train.tfrecord", "cifar_train.tfrecord"], "sets of train shards: cifar_train.tfrecord and", "elsewhere"),
    (["train.tfrecord", "train/a.tfrecord"], "two sets of train shards", "elsewhere"),
    (["train.tfrecord-00001-of-00002"], "1 of 2 train shards", "put all shards there")])
def test_shards_that_are_not_read_are_named_with_the_way_out(tmp_path, names, words, fix):
    for name in names:
        write_shard(tmp_path / name, *FEW)
    with pytest.raises(DataError, match=words) as caught:
        find_shards(tmp_path)
    assert fix in caught.value.fix


@pytest.mark.parametrize("name", ["1.jpg", "train.csv", "train.gz", "data.bin", "model-00001-of-00002.bin", "notes.txt",
                                  ".train.tfrecord", "train", "labels.tar.gz", "ckpt.data-00000-of-00001"])
def test_other_files_are_no_shards(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert find_shards(tmp_path) == ({}, [])


def test_a_compressed_shard_without_an_ending_is_told(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord"), "GZIP") as writer:
        writer.write(b"x")
    with pytest.raises(DataError, match="or is compressed") as caught:
        external_shards.make_index(tmp_path, tmp_path)
    assert "gunzip" in caught.value.fix


LETTERS = tuple(b"%c" % letter for letter in b"abcdefghij")


@pytest.mark.parametrize("make, classes", [
    (lambda data, label: example(image_raw=data, label=label), range(10)),
    (lambda data, label: example(**{"Image": data, "class": label + 1}), range(1, 11)),
    (lambda data, label: example(image=data, target=label, class_name=LETTERS[label]), "abcdefghij"),
    (lambda data, label: example(image=data, label=LETTERS[9 - label]), "abcdefghij"),
    (lambda data, label: example(encoded=data, image__class__text=LETTERS[label]), "abcdefghij"),
    (lambda data, label: example(image=data, label=float(label)), range(10)),
    (lambda data, label: example(img=data, one_hot_class=[int(label == place) for place in range(10)]), range(10))])
def test_keys_as_people_write_them(tmp_path, make, classes):
    write_shard(tmp_path / "train.tfrecord", *FEW, make)
    external_shards.make_index(tmp_path, tmp_path)
    data = load(tmp_path)
    assert data.classes == tuple(map(str, classes)) and np.bincount(data.train.labels).tolist() == [1] * 10


@pytest.mark.parametrize("names, first", [("abcdefghij", 0), ("abcdefghij", 1), ("abc", 0)])
def test_a_file_names_the_classes(tmp_path, names, first):
    write_shard(tmp_path / "train.tfrecord", FEW[0], FEW[1] + first)
    (tmp_path / "labels.txt").write_text("\n".join(names))
    if len(names) < 10:
        with pytest.raises(DataError, match="labels.txt names 3 classes, and a label is 9"):
            external_shards.make_index(tmp_path, tmp_path)
    else:
        external_shards.make_index(tmp_path, tmp_path)
        assert load(tmp_path).classes == tuple(names)


@pytest.mark.parametrize("make, words", [
    (lambda data, label: example(image_raw=b"\0" * 3072, label=label), "no record holds an image file"),
    (lambda data, label: example(image=data, label=[3, 4]), "several images or labels"),
    (lambda data, label: example(image=data, label=0.5), "one that is no class"),
    (lambda data, label: example(image=data, boxes=label), "record 0: it has no label"),
    (lambda data, label: example(photo=data, label=label), "its keys are label, photo")])
def test_records_that_are_not_read(tmp_path, make, words):
    write_shard(tmp_path / "train.tfrecord", *FEW, make)
    with pytest.raises(DataError, match=words):
        external_shards.make_index(tmp_path, tmp_path)


def test_foreign_shards_that_are_missing_or_damaged(tmp_path):
    make = lambda data, label: example(image=data, label=label)  # noqa: E731
    write_foreign(tmp_path / "t", "test", 1, 10, make)
    with pytest.raises(DataError, match="has shards of test only"):
        external_shards.make_index(tmp_path / "t", tmp_path / "t")
    write_foreign(tmp_path / "t", "train", 3, 30, make)
    flip(tmp_path / "t/train-00001-of-00003", 50)
    with pytest.raises(DataError, match="train-00001-of-00003 is damaged: record 0"):
        external_shards.make_index(tmp_path / "t", tmp_path / "t")
    (tmp_path / "t/train-00001-of-00003").unlink()
    with pytest.raises(DataError, match="2 of 3 train shards; the first that is missing is number 1"):
        external_shards.make_index(tmp_path / "t", tmp_path / "t")
    write_foreign(tmp_path / "t", "train", 3, 30, lambda data, label: example(other=data))
    with pytest.raises(DataError, match="train-00000-of-00003, record 0: it has neither"):
        external_shards.make_index(tmp_path / "t", tmp_path / "t")


def test_the_crc_of_the_index_is_the_images(made):
    _, splits, _ = index.read(made)
    row = splits["test"].rows[0]
    data = (made / splits["test"].shards[0]["file"]).read_bytes()[int(row["offset"]):][:int(row["length"])]
    assert zlib.crc32(data) == row["crc"] and data[:4] == b"\x89PNG"
