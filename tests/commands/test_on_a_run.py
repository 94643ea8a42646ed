"""The commands on one trained run whose classes and files have the names that people give: all on ASCII terminals."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import environment
from image_files import encode, photo
from in_process import command
from runs import finish, start

from trainer.quality.predictions import Predictions
from trainer.storage.manifest import read_manifest

pytestmark = pytest.mark.slow

CLASSES = ("[bold]red", "café:smile:", "vert\x1b[31m")  # each shows in one channel


def picture(channel, seed):
    image = photo(40, 40, seed) // 3
    image[..., channel] += 120
    return encode(image, "PNG")


def write(folder, per_class, classes=CLASSES, seed=0):
    """per_class images of each class, as folder/CLASS/NUMBER.png; a name's place in `CLASSES` is its channel."""
    for name in classes:
        for number in range(per_class):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            channel = CLASSES.index(name)
            path.write_bytes(picture(channel, seed + 100 * channel + number))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the data `d` and the trained `run`; commands are called from there."""
    folder = tmp_path_factory.mktemp("a run")
    write(folder / "d/train", 20)
    write(folder / "d/test", 5, seed=50)
    before = os.getcwd()
    os.chdir(folder)
    flags = ("--dataset=folder", "--data_dir=d", "--model=small_models:smooth", "--image_size=32",
             "--batch_size=20", "--epochs=12", "--learning_rate=0.01", "--eval_every_epochs=12", "--export=none",
             "--strategy=one_device")
    # A process of its own: the tests' process may have started other devices, which a run refuses.
    finish(start(folder, *flags), 0)
    yield folder
    os.chdir(before)


def on_run(name, *words, **more):
    return command(name, "--model_dir=run", *words, **more)


@pytest.fixture(scope="module")
def odd(root):
    """Files of all kinds of names, some of them bad, in a folder: (their names in order, the bad ones)."""
    folder = root / "files"
    names = ["0.png", "1 [final].png", "2é:cat:.png", os.fsdecode(b"3\xff.png"), "4\n\x1b[2J.png", "5 bad.png",
             "6 cut.png", "7.png"]
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number % 3, 500 + number))
    (folder / "5 bad.png").write_text("no image")
    (folder / "6 cut.png").write_bytes(picture(0, 1)[:-200])
    (folder / "notes.txt").write_text("not opened")
    return [f"files/{name}" for name in names], {"files/5 bad.png", "files/6 cut.png"}


def check_end(done, bad, count):
    """The end of a `predict` with bad files: named, counted, 65, and nothing that a terminal obeys."""
    assert done.code == 65 and f"{len(bad)} of {count} files can't be used" in done.err
    assert all(name in done.err for name in bad) and "Traceback" not in done.err
    assert done.out.replace("\n", "").isprintable() and done.err.replace("\n", "").isprintable()


def test_predict_answers_in_order_whatever_the_names_and_without_the_training_data(root, odd, monkeypatch):
    names, bad = odd
    (root / "d").rename(root / "away")
    try:
        done = on_run("predict", "--json", "files")
        rows = [json.loads(line) for line in done.out.splitlines()]
        check_end(done, bad, 8)
        assert [row["file"] for row in rows] == names and {row["file"] for row in rows if "error" in row} == bad
        right = [row["class"] == CLASSES[number % 3] for number, row in enumerate(rows) if "error" not in row]
        assert all(right) and len(right) == 6

        stdin = b"files/0.png\nfiles/5 bad.png\nfiles/2\xc3\xa9:cat:.png"
        done = on_run("predict", "--csv", "--top_k=2", "-", stdin=stdin)
        check_end(done, {"files/5 bad.png"}, 3)
        first, second, third = csv.DictReader(done.out.splitlines())
        assert first["class"] == "[bold]red" and first["class_2"] in ("caf\\xe9:smile:", "vert\\x1b[31m")
        assert (second["class"], second["error"][:20]) == ("", "it is not an image o")
        assert third["class"] == "vert\\x1b[31m" and third["file"] == "files/2\\xe9:cat:.png"

        done = on_run("predict", "files", encoding="utf-8")
        check_end(done, bad, 8)
        lines = done.out.splitlines()
        assert len(lines) == 9 and lines[1].startswith("[bold]red ") and lines[2].startswith("café:smile: ")
        assert lines[4].endswith(r"files/3\udcff.png") and lines[5].endswith(r"files/4\n\x1b[2J.png")
    finally:
        (root / "away").rename(root / "d")


def test_thousands_of_files_are_answered_in_their_order(root):
    """Through pipelines that are opened again and again, with bad files at the ends of lists and of chunks."""
    folder = root / "many"
    folder.mkdir()
    contents = [picture(channel, 900 + channel) for channel in range(3)]
    bad = {0, 63, 64, 319, 700, 1199}
    for number in range(1200):
        (folder / f"{number:05}.png").write_bytes(b"" if number in bad else contents[number % 3])
    done = on_run("predict", "--csv", "many")
    rows = list(csv.DictReader(done.out.splitlines()))
    assert done.code == 65 and "6 of 1,200 files" in done.err
    assert [row["file"] for row in rows] == [f"many/{number:05}.png" for number in range(1200)]
    assert {number for number, row in enumerate(rows) if row["error"]} == bad
    for number, row in enumerate(rows):
        assert number in bad or row["class"] == ("[bold]red", "caf\\xe9:smile:", "vert\\x1b[31m")[number % 3]


def test_a_reader_that_leaves_is_no_error(root):
    reader, writer = os.pipe()
    os.close(reader)
    out = open(writer, "w")  # noqa: SIM115  what is in its buffer can't be written
    done = on_run("predict", "files/0.png", out=out)
    assert done.code == 128 + signal.SIGPIPE and "names code" in done.err and done.err.count("\n") == 1
    with pytest.raises(BrokenPipeError):
        out.close()


def test_other_images_are_evaluated_by_the_names_of_their_classes(root):
    """tests/data/test_labelled.py has the sources and what they refuse; here is what is printed."""
    # Two of three classes, whose places differ from the model's, in class folders alone.
    write(root / "other", 7, CLASSES[1:], seed=70)
    (root / "other" / CLASSES[1] / "0.png").write_bytes(picture(0, 1)[:-200])
    done = on_run("evaluate", "--dataset=folder", "--data_dir=other")
    assert done.code == 65 and "1/0.png" not in done.err and "0.png: it can't be decoded" in done.err
    done = on_run("evaluate", "--dataset=folder", "--data_dir=other", "--max_bad_records=1", "--json")
    answer = json.loads(done.out)
    assert done.code == 0 and "left out: caf\\xe9:smile:/0.png: it can't be decoded" in done.err
    assert (answer["split"], answer["examples"], answer["bad_records"], answer["own_data"]) == ("all", 13, 1, False)
    assert (answer["dataset"], answer["data_dir"]) == ("folder", "other")
    assert answer["class_accuracy"][CLASSES[0]] is None and answer["eval_loss"] < 0.5
    assert min(answer["class_accuracy"][name] for name in CLASSES[1:]) > 0.8

    done = on_run("evaluate", "--dataset=test_on_a_run:turned")
    assert done.code == 0 and "train accuracy 100.00%" in done.out
    assert "over 12 examples of other images, test_on_a_run:turned (" in done.out
    assert "caf\\xe9:smile: 100.0%" in done.out and "no examples of 1 other classes" in done.out
    # Without --dataset it is the run's data that is meant.
    done = on_run("evaluate", "--data_dir=other")
    assert done.code == 65 and "--dataset=folder" in done.err
    done = on_run("evaluate", "--split=validation")
    assert done.code == 64 and "no such split; there are: train, test" in done.err


def turned(config):
    """A training split alone, of two of the model's classes in another order."""
    del config
    channels = np.arange(12) % 2
    images = np.stack([photo(32, 32, seed) // 3 for seed in range(12)])
    images[np.arange(12), ..., channels] += 120
    return CLASSES[1::-1], (images, 1 - channels)


def test_exports_without_the_training_data_are_compared_with_the_model(root, monkeypatch):
    (root / "d").rename(root / "away")
    try:
        done = on_run("export", "--data_dir=away/none")
        assert done.code == 65  # the user said where it is
        done = on_run("export")
        assert done.code == 0 and "the exports are not measured" in done.err and "d is not there" in done.err
        assert done.out.count("not measured; answers as the model on 64 drawn images") == 3
        manifest, fault = read_manifest(root / "run/export")
        assert not fault and set(manifest["exports"]) == {"h5", "keras", "saved_model"}
        for entry in manifest["exports"].values():
            assert "accuracy" not in entry and entry["largest_difference"] < 1e-4 and entry["inputs"] == 64
        assert manifest["exports"]["saved_model"]["file_examples"] == 64
        assert on_run("verify").code == 0
        done = on_run("export", "--table", "--json")
        assert done.code == 0 and json.loads(done.out) == manifest["exports"]
        shown = on_run("export", "--table").out
        assert "latency: from uint8 images to probabilities, medians, on the CPU with" in shown
        assert {"h5", "keras", "saved_model", "-"} <= set(re.findall(r"[\w./-]+", shown))
        step = manifest["exports"]["h5"]["weights"]["step"]
        figures = json.loads((root / "run/result.json").read_text())["quality"]
        assert figures["step"] == step  # so these are the weights' figures, though nothing can be measured now
        assert f"**{figures['accuracy']:.2%}** of the 15 images" in (root / "run/export/MODEL_CARD.md").read_text()

        def save_another(name, model, path, *_):
            import keras

            other = keras.models.clone_model(model)
            other.set_weights([weights * 1.05 for weights in model.get_weights()])
            other.save(path)

        monkeypatch.setattr("trainer.export.exporter.write", save_another)
        done = on_run("export", "--export=keras")
        assert done.code == 74 and "the keras export is not the model: its probabilities differ" in done.err
        assert read_manifest(root / "run/export") == (manifest, None)
    finally:
        (root / "away").rename(root / "d")


def test_a_table_of_no_exports_is_refused(tmp_path):
    done = command("export", f"--model_dir={tmp_path}", "--table")
    assert done.code == 65 and "holds no exports" in done.err and "trainer export" in done.err


def test_names_go_in_and_answers_come_out_one_by_one_until_ctrl_c(root):
    # Where this suite runs in the background, its processes begin with Ctrl-C ignored.
    code = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from trainer.__main__ import program; program()")
    process = subprocess.Popen([sys.executable, "-c", code, "predict", "--model_dir=run", "--csv", "-"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment(PYTHONIOENCODING="ascii"))
    assert process.stdout.readline() == b"file,class,probability,error\n"
    for name in (b"files/0.png", b"files/5 bad.png"):
        process.stdin.write(name + b"\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(name + b",")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75 and not out and b"stopped by Ctrl-C" in err and b"Traceback" not in err


def test_doctor_on_an_ascii_terminal(root):
    done = command("doctor", "--data", "--dataset=folder", "--data_dir=d")
    assert done.code == 0 and "75 images read: all of them can be used" in done.out
    assert "40 \\xd7 40 \\xd7 3" in done.out
    assert command("--help").code == 0


def test_the_labels_of_a_runs_data_are_doubted_by_what_the_run_says(root):
    """By the run as it is, none; then what it says of one image is that of another class."""
    done = on_run("doctor", "--data", "--json", "--out=data.html")
    found = json.loads(done.out)
    assert done.code == 0 and found["images_read"] == 75 and found["likely_wrong_labels"] == []
    shutil.copytree("run", "doubted")
    said = Predictions.read("doubted/predictions.npz")
    said.probabilities[0] = [0, 1, 0]
    said.write("doubted/predictions.npz")
    done = command("doctor", "--data", "--model_dir=doubted", "--json")
    [label] = json.loads(done.out)["likely_wrong_labels"]
    assert (label["id"], label["class"], label["suggested"]) == (0, CLASSES[0], CLASSES[1])
    assert "written: data.html" in on_run("doctor", "--data", "--out=data.html").out
