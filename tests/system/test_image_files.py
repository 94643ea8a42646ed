"""Images in files, from class folders to a prediction, disturbed on the way."""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import runs
import tensorflow as tf
from conftest import environment, run_module
from image_files import class_folders, encode, photo, turned
from runs import assert_equal_runs, finish

# Images that are cut out at random while they are read, one that can't be read, two replicas.
FLAGS = ("--model=small_models:normalized", "--batch_size=16", "--max_steps=18", "--optimizer=sgd",
         "--learning_rate=0.05", "--augment=flip,crop,cutout,mixup", "--eval_every_epochs=0.9", "--log_every_steps=4",
         "--checkpoint_every_steps=5", "--num_gpus=0", "--virtual_devices=2", "--export=none", "--ledger",
         "--image_size=72", "--max_bad_records=1", "--class_weights=balanced")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """150 and 40 JPEGs of 80 pixels in class folders; one of them is cut off."""
    root = tmp_path_factory.mktemp("images")
    paths = class_folders(root / "train", 150, "jpg", "JPEG", 80)
    class_folders(root / "test", 40, "jpg", "JPEG", 80, split=1)
    paths[30].write_bytes(paths[30].read_bytes()[:-300])
    return root


@pytest.fixture(scope="module")
def records(folder, tmp_path_factory):
    """They as records."""
    out = tmp_path_factory.mktemp("records")
    done = command(out, "prepare", f"--data_dir={folder}", f"--out={out}", "--shards=4", "--max_bad_records=1")
    assert done.code == 0, done.err
    return out


def command(cwd, *words):
    return run_module(cwd, "trainer", *words)


def test_a_run_on_files_that_was_killed_ends_like_one_that_was_not(folder, tmp_path):
    flags = (*FLAGS, "--dataset=folder", f"--data_dir={folder}")
    for name in ("through", "killed"):
        (tmp_path / name).mkdir()
    out, _ = finish(runs.start(tmp_path / "through", *flags), 0)
    assert "10 classes" in out and "1 images or files could not be used; they had no weight" in out
    process = runs.start(tmp_path / "killed", *flags)
    checkpoint = tmp_path / "killed/run/checkpoints/step-00000010/manifest.json"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    out, _ = finish(runs.start(tmp_path / "killed", *flags), 0)
    assert "resuming from step" in out
    assert_equal_runs(tmp_path / "killed", tmp_path / "through")
    result = json.loads((tmp_path / "killed/run/result.json").read_text())
    assert result["bad_records"] == 1 and len(result["class_accuracy"]) == 10
    skipped = sum(line["bad_records"] for line in runs.reported(tmp_path / "through") if line["split"] == "train")
    assert skipped > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_reads_ahead_ends_in_time(folder, tmp_path, number):
    """Pipelines that are in the middle of a call of Python must not keep the process from ending."""
    process = runs.start(tmp_path, *FLAGS, "--dataset=folder", f"--data_dir={folder}", "--max_steps=100000",
                         "--eval_every_epochs=10000", "--log_every_steps=1")
    while not (tmp_path / "run/metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    began = time.monotonic()
    finish(process, 75)
    assert time.monotonic() - began < 10


def test_from_a_folder_of_images_to_a_prediction(tmp_path):
    """As docs/data.md has it, with images whose colour tells their class."""
    for number in range(60):
        channel, half = number % 3, "train" if number < 45 else "test"
        image = photo(60, 90, number) // 2
        image[..., channel] += 100
        path = tmp_path / "images" / half / ("red", "green", "sky blue")[channel] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image, "JPEG"))
    broken = tmp_path / "images/train/red/0.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    said = command(tmp_path, "doctor", "--data", "--dataset=folder", "--data_dir=images")
    assert said.code == 65 and "1 images or files can't be used:\n  train/red/0.jpg: it can't be decoded" in said.err
    broken.unlink()
    assert command(tmp_path, "prepare", "--data_dir=images", "--out=records").code == 0
    finish(runs.start(tmp_path, "--dataset=records", "--data_dir=records", "--image_size=32", "--epochs=30",
                      "--batch_size=22", "--eval_every_epochs=30", "--export=saved_model"), 0)
    evaluated = json.loads(command(tmp_path, "evaluate", "--model_dir=run", "--json").out)
    assert evaluated["eval_accuracy"] > 0.8 and evaluated["examples"] == 15
    assert evaluated["class_accuracy"].keys() == {"red", "green", "sky blue"}
    images = sorted((tmp_path / "images/test").glob("*/*.jpg"))
    rows = list(csv.DictReader(io.StringIO(command(tmp_path, "predict", "--model_dir=run", "--csv", *images).out)))
    right = sum(row["class"] == path.parent.name for row, path in zip(rows, images, strict=True))
    # The very images that evaluation saw, though these come from the folder and those from records.
    assert right == round(15 * evaluated["eval_accuracy"])


def test_an_answer_carries_its_file_whatever_else_fails(tmp_path):
    """A PNG with a damaged checksum, which some decoders read; the same answers from the served model."""
    for split, count in (("train", 40), ("test", 10)):
        class_folders(tmp_path / "images" / split, count, classes=("cat", "dog"))
    finish(runs.start(tmp_path, "--dataset=folder", "--data_dir=images", "--max_steps=3", "--batch_size=16",
                      "--export=saved_model"), 0)
    files = {f"{letter}.png": encode(photo(300, 300, number)) for number, letter in enumerate("abc")}
    files["d [final].jpg"] = turned(photo(300, 200), 6)
    files["a.png"] = flip_checksum(files["a.png"])
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    done = command(tmp_path, "predict", "--model_dir=run", "--json", *files)
    rows = {row["file"]: row for row in map(json.loads, done.out.splitlines())}
    assert done.code == 65 and "1 of 4 files can't be used:\n  a.png: it can't be decoded" in done.err
    assert list(rows) == list(files) and "it can't be decoded" in rows.pop("a.png")["error"]
    served = tf.saved_model.load(str(tmp_path / "run/export/saved_model/1")).signatures["serve_bytes"]
    for name, row in rows.items():
        answer = served(image_bytes=tf.constant([files[name]]))["probabilities"].numpy()[0]
        np.testing.assert_allclose(answer, list(row["probabilities"].values()), atol=1e-6)
    with pytest.raises(tf.errors.OpError):
        served(image_bytes=tf.constant([files["a.png"]]))
    measured = json.loads((tmp_path / "run/result.json").read_text())["exports"]["saved_model"]
    assert (measured["file_examples"], measured["file_differences"]) == (10, 0)


def flip_checksum(png):
    """A PNG with one bit of the checksum of its pixels changed."""
    place = png.index(b"IDAT")
    place += 4 + int.from_bytes(png[place - 4:place], "big")
    return png[:place] + bytes([png[place] ^ 1]) + png[place + 1:]


def test_preparing_goes_on_after_a_kill(tmp_path):
    (tmp_path / "d/a").mkdir(parents=True), (tmp_path / "d/b").mkdir()
    for number in range(60):
        (tmp_path / f"d/{'ab'[number % 2]}/{number}.webp").write_bytes(encode(photo(400, 500, number), "WEBP"))
    words = ("prepare", "--data_dir=d", "--shards=12")
    assert command(tmp_path, *words, "--out=through").code == 0
    process = subprocess.Popen([sys.executable, "-m", "trainer", *words, "--out=killed"], cwd=tmp_path,
                               env=environment())
    while len(list(tmp_path.glob("killed/.work/*.json"))) < 4 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    finished = {path.stem: path.stat().st_mtime_ns for path in tmp_path.glob("killed/.work/*.json")}
    assert 4 <= len(finished) < 13 and not (tmp_path / "killed/dataset.json").exists()
    kept = {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in finished}
    assert command(tmp_path, *words, "--out=killed").code == 0
    assert kept == {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in finished}
    for path in (tmp_path / "through").iterdir():
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes(), path.name
    assert not (tmp_path / "killed/.work").exists()


def test_a_shard_that_was_exchanged_is_named_when_the_run_goes_on(records, folder, tmp_path):
    flags = (*FLAGS, "--dataset=records", "--data_dir=records")
    shutil.copytree(records, tmp_path / "records")
    finish(runs.start(tmp_path, *flags, "--max_steps=5"), 0)
    shards = [tmp_path / f"records/train-0000{number}-of-00004" for number in (0, 1)]
    before = shards[0].read_bytes()
    shards[0].write_bytes(shards[1].read_bytes())
    _, err = finish(runs.start(tmp_path, *flags), 65)
    assert "train-00000-of-00004 is not the one that the index was made of" in err
    # With an index that fits them, the run still knows that they aren't its own.
    shards[0].write_bytes(before)
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    next(changed.glob("train/*/*7.jpg")).unlink()
    shutil.rmtree(tmp_path / "records")
    assert command(tmp_path, "prepare", f"--data_dir={changed}", "--out=records", "--shards=4",
                   "--max_bad_records=1").code == 0
    _, err = finish(runs.start(tmp_path, *flags), 65)
    assert "the data is not what it was when this run began: train-0000" in err and "is another one" in err


def test_bad_images_end_the_run_by_name_before_and_within_it(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "d")
    flags = (*FLAGS[:-2], "--dataset=folder", "--data_dir=d")
    _, err = finish(runs.start(tmp_path, *flags), 65)
    assert "1 image or file can't be used" in err and ".jpg: it can't be decoded" in err
    whole = encode(photo(90, 90))
    (tmp_path / "d/train/ring/half.png").write_bytes(whole[:len(whole) // 2])  # its header says nothing of that
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    _, err = finish(runs.start(tmp_path, *flags, "--max_bad_records=1"), 65)
    assert "2 images or files can't be used" in err and "train/ring/half.png: it can't be decoded" in err
