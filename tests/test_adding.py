"""What CONTRIBUTING.md says about adding a model, a data source, an augmentation, a tracker and so on is true.

In a copy of the package: each new file is found by its name, and nothing else is touched but for the optimizer's row.
"""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, environment

pytestmark = pytest.mark.slow

FILES = {
    "models/zoo/tiny.py": '''"""One dense layer."""
from keras import layers


def features(x):
    """The mean of each channel."""
    return layers.GlobalAveragePooling2D()(x)
''',
    "data/sources/halves.py": '''"""Images that are dark or bright."""
import numpy as np

from trainer.data.dataset import in_memory


def load(config):
    """Draws them."""
    labels = np.arange(64) % 2
    images = np.full((64, 8, 8, 3), 40, np.uint8) + 150 * labels[:, None, None, None].astype(np.uint8)
    return in_memory("halves", ("dark", "bright"), (images, labels), (images, labels))
''',
    "data/augment/images/invert.py": '''"""Turns light to dark in every image."""


def augment(images, seeds):
    """Inverts them."""
    del seeds
    return 255 - images
''',
    "data/augment/pairs/half.py": '''"""The mean of two images."""
import tensorflow as tf


def mix(images, partners, seeds):
    """Half of each."""
    return (images + partners) / 2, tf.fill(tf.shape(seeds), 0.5)
''',
    "reporting/trackers/clients/diary.py": '''"""Writes into a file, by a package named diary."""
import json

import diary

HINT = "buy a pen"


def connect(run):
    """Opens the file."""
    return Diary(run)


class Diary:
    """A run in the file."""

    def __init__(self, run):
        self.id, self.place, self._path = run.name, str(diary.PATH), diary.PATH

    def last_step(self):
        """The last one."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return max([json.loads(line)["step"] for line in lines if "step" in json.loads(line)], default=-1)

    def log(self, points):
        """Writes them."""
        self._write(*({"step": point.step, **point.metrics} for point in points))

    def result(self, numbers, words, step, files):
        """Writes it."""
        self._write({"result": numbers, "files": [path.name for path in files]})

    def close(self, code):
        """Writes the code."""
        self._write({"code": code})

    def _write(self, *lines):
        with open(self._path, "a") as file:
            file.writelines(json.dumps(line) + "\\n" for line in lines)
''',
    "../diary.py": '''"""The client of a tracker."""
from pathlib import Path

PATH = Path(__file__).with_name("diary.jsonl")
''',
    "commands/hello.py": '''"""`hello`: greets."""
import dataclasses

from trainer.options import Checked, option


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer hello: greets."""

    name: str = option("you", "whom")


def run(options):
    """Greets."""
    print("hello,", options.name)
'''}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "trainer", folder / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        (folder / "trainer" / name).write_text(text)
    config = folder / "trainer/config.py"
    config.write_text(config.read_text().replace('OPTIMIZERS = {', 'OPTIMIZERS = {"adamax": "Adamax", ', 1))
    return folder


def run(copy, *words):
    return subprocess.run([sys.executable, "-m", *words], cwd=copy, text=True, capture_output=True,
                          env={**environment(), "PYTHONPATH": str(copy)})


def test_a_run_with_one_of_each(copy):
    done = run(copy, "trainer.main", "--model=tiny", "--dataset=halves", "--augment=invert,half", "--optimizer=adamax",
               "--batch_size=8", "--max_steps=4", "--num_gpus=0", "--export=keras", "--model_dir=run",
               "--trackers=diary", "--log_every_steps=2")
    assert done.returncode == 0, done.stderr
    assert json.loads((copy / "run/result.json").read_text())["exports"]["keras"]["examples"] == 64
    *points, result, end = [json.loads(line) for line in (copy / "diary.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points] == [2, 4] and "eval/accuracy" in points[1]
    assert result["result"]["exports/keras/accuracy"] == points[1]["eval/accuracy"]
    assert result["files"] == ["report.html", "curves.png"] and end == {"code": 0}


def test_a_command(copy):
    assert run(copy, "trainer", "hello", "--name=world").stdout == "hello, world\n"
    assert "  hello      greets\n" in run(copy, "trainer", "--help").stdout
