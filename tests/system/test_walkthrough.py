"""Commands of docs/, run as they stand there."""

import json
import re
import shlex

import pytest
from conftest import ROOT, run_module
from image_files import class_folders

from trainer.__main__ import COMMANDS


def blocks(page, language=""):
    """The blocks of code of a page, in order."""
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.S | re.M)
    return [text for kind, text in found if kind == language]


def run_all(folder, text):
    """Runs each command of a text that starts this program; returns how many."""
    count = 0
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["lockstep"] and words[1] in COMMANDS:
            done = run_module(folder, "trainer", *words[1:], timeout=900)
            assert done.code == 0, f"{line}\n{done.out}{done.err}"
            count += 1
    return count


@pytest.mark.long
def test_from_a_folder_of_photographs_to_exports(tmp_path):
    """With a file of weights in place of those of ImageNet, which are fetched, and fewer epochs."""
    import keras

    class_folders(tmp_path / "photographs", 100, "jpg", "JPEG", side=64)
    network = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(64, 64, 3))
    network.save_weights(tmp_path / "network.weights.h5")
    commands = blocks("fine_tuning.md")[0].replace("--epochs=20", "--max_steps=6")
    assert run_all(tmp_path, commands.replace("=imagenet", "=network.weights.h5")) == 6
    tuned = json.loads((tmp_path / "runs/tuned/result.json").read_text())
    assert tuned["initialized_from"]["path"].endswith("runs/probe")
    assert (tmp_path / "runs/tuned/export/model.tflite").exists()


@pytest.mark.long
def test_from_nothing_to_a_model(tmp_path):
    assert run_all(tmp_path, "".join(blocks("index.md"))) == 4
    assert json.loads((tmp_path / "runs/first/result.json").read_text())["eval_accuracy"] > 0.95


def test_a_model_that_moves_over_from_keras(tmp_path):
    (code,), (command, *_) = blocks("coming_from.md", "python"), blocks("coming_from.md")
    assert code.startswith("# mine.py")
    (tmp_path / "mine.py").write_text(code)
    assert run_all(tmp_path, command) == 1
    assert (tmp_path / "runs/moved/export/model.keras").exists()


def test_own_code_of_each_kind(tmp_path):
    (code,), (commands, *_) = blocks("own_code.md", "python"), blocks("own_code.md")
    assert code.startswith("# mine.py")
    (tmp_path / "mine.py").write_text(code)
    assert run_all(tmp_path, commands) == 2
    quality = json.loads((tmp_path / "runs/mine/result.json").read_text())["quality"]
    error = quality["metrics"]["mine:balanced_error"]
    assert error < 0.2 and error == pytest.approx(1 - quality["accuracy"]), "both classes have as many examples"
    assert "mine:balanced_error" in (tmp_path / "runs/mine/report/report.html").read_text()
