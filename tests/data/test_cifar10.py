"""CIFAR-10's binary and Python files: read, damaged, hostile."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import Config
from trainer.data.sources import cifar10 as source
from trainer.errors import DataError


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return {name: (rng.integers(0, 256, (4, 3072), np.uint8), rng.integers(0, 10, 4))
            for name in (*source.TRAIN, *source.TEST)}


@pytest.fixture
def binary(tmp_path, examples):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (images, labels) in examples.items():
        np.hstack([labels[:, None].astype(np.uint8), images]).tofile(folder / f"{name}.bin")
    return folder


@pytest.fixture
def python(tmp_path, examples):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, (images, labels) in examples.items():
        (folder / name).write_bytes(pickle.dumps({b"data": images, b"labels": labels.tolist()}, protocol=2))
    return folder


def load(folder):
    return source.load(Config(data_dir=str(folder)))


def fails(folder, *parts):
    with pytest.raises(DataError) as caught:
        load(folder)
    for part in parts:
        assert part in str(caught.value)


def test_images_and_labels_are_what_the_files_hold(binary, examples):
    data = load(binary.parent)
    assert data.train.size == 20 and data.test.size == 4 and data.image_shape == (32, 32, 3)
    images, labels = examples["data_batch_2"]
    # Byte 1024 + 33 of a record is the green of row 1, column 1.
    assert data.train.images[4, 1, 1, 1] == images[0, 1024 + 33]
    assert data.train.labels[4:8].tolist() == labels.tolist()


def test_both_layouts_give_the_same(tmp_path, binary, python):
    one = load(binary)
    assert one.fingerprint == load(python).fingerprint == load(tmp_path).fingerprint


def test_the_fingerprint_sees_one_bit(binary):
    before = load(binary).fingerprint
    data = bytearray((binary / "test_batch.bin").read_bytes())
    data[-1] ^= 1
    (binary / "test_batch.bin").write_bytes(data)
    assert load(binary).fingerprint != before


def test_a_pickle_that_is_a_program_is_not_run(python, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/attacked",)

    (python / "data_batch_3").write_bytes(pickle.dumps({b"data": Attack(), b"labels": []}, protocol=2))
    fails(python, "data_batch_3: the pickle asks for posix.system", "not run")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("cut", [0, 1, 3072, 3073 * 4 - 1])
def test_a_truncated_binary_file(binary, cut):
    path = binary / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:cut])
    fails(binary, "data_batch_4.bin is damaged", f"record {cut // 3073}")


def test_a_file_that_ends_between_two_records(binary):
    path = binary / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:3073 * 3])
    fails(binary, "data_batch_4.bin is damaged: it holds 3 records, data_batch_1.bin 4; record 3 and all after it")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=100), repeats=st.integers(0, 100), layout=st.sampled_from(["", ".bin"]))
def test_any_bytes_are_refused_or_read_as_they_are(tmp_path_factory, content, repeats, layout):
    """No traceback, and nothing that isn't in the file."""
    folder, content = tmp_path_factory.mktemp("any"), content * repeats
    for name in (*source.TRAIN, *source.TEST):
        (folder / f"{name}{layout}").write_bytes(content)
    try:
        data = load(folder)
    except DataError as error:
        assert "data_batch_1" in error.cause
        return
    assert layout and len(content) % 3073 == 0
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    np.testing.assert_array_equal(data.test.images, rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_any_byte_of_a_pickle_may_change(tmp_path_factory, place, byte):
    folder = tmp_path_factory.mktemp("any")
    whole = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=2)
    changed = bytearray(whole)
    # The images are zeros, so a change among them would be an image like any other.
    edges = [index for index in range(len(whole)) if whole[index]]
    changed[edges[place % len(edges)]] = byte
    for name in (*source.TRAIN, *source.TEST):
        (folder / name).write_bytes(changed)
    try:
        data = load(folder)
    except DataError:
        return
    assert data.test.images.shape == (2, 32, 32, 3) and set(data.test.labels.tolist()) <= set(range(10))


def test_a_truncated_pickle(python):
    path = python / "test_batch"
    path.write_bytes(path.read_bytes()[:1000])
    fails(python, "test_batch is damaged")


def test_a_missing_file(binary):
    (binary / "data_batch_5.bin").unlink()
    fails(binary, "data_batch_5.bin", "No such file")
    (binary / "data_batch_1.bin").unlink()
    fails(binary, "data_batch_1.bin", "No such file")


def test_a_label_out_of_range(binary):
    path = binary / "data_batch_1.bin"
    data = bytearray(path.read_bytes())
    data[2 * 3073] = 10
    path.write_bytes(data)
    fails(binary, "data_batch_1.bin", "label of record 2 is 10")


@pytest.mark.parametrize("batch", [[], {b"data": 3}, {b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]},
                                   {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
                                   {b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 2]}])
def test_pickles_of_something_else(python, batch):
    (python / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    fails(python, "data_batch_1 is damaged")


def test_nothing_there_and_no_way_to_download(tmp_path, monkeypatch):
    # The real downloader, sent to a port of this machine where nobody listens.
    monkeypatch.setattr(source, "_ORIGIN", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setattr(source, "_KERAS_FOLDER", "not-downloaded-yet")
    fails(tmp_path, "download failed", "--dataset=shapes", "--data_dir")


def test_the_real_images(cifar10):
    data = load(cifar10)
    assert data.train.size == 50_000 and data.test.size == 10_000
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    assert 100 < data.train.images.mean() < 140
