"""The HParams table, as TensorBoard's own server gives it to the browser."""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import environment
from PIL import Image

from trainer import models
from trainer.config import Config
from trainer.reporting.board.tables import table
from trainer.reporting.tensorboard import TensorBoardWriter

RUNS = {"optimizer=sgd": (Config(optimizer="sgd", learning_rate=0.5, augment=("flip", "crop"), ledger=True,
                                export=("h5", "keras")), 0.25),
        "optimizer=adam": (Config(optimizer="adam", max_steps=7), 0.75)}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder of runs, each with the event files that a run leaves."""
    out = tmp_path_factory.mktemp("swept")
    for name, (config, accuracy) in RUNS.items():
        events = TensorBoardWriter(out / name / "tensorboard", {})
        events.write_settings(dataclasses.asdict(config))
        for split in ("train", "eval"):
            for step in (5, 10):
                events.write(split, step, {"accuracy": accuracy * step / 10 if split == "eval" else 0.0,
                                           "loss": 1 / step})
        events.write_model(models.build("cnn3", 10, (32, 32, 3)).to_json())
        events.write_drawings("eval", 10, {"quality/confusion": Image.new("RGB", (5, 3), "red")})
        events.write_text("eval", 10, {"quality/classes": table(("class", "recall"), [("<b>_|", "1")])})
        events.close()
    return out


@contextlib.contextmanager
def tensorboard(folder):
    """TensorBoard on a folder and a free port; gives a function that asks its HParams plugin."""
    process = subprocess.Popen([sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", "--host=127.0.0.1",
                                "--port=0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               env=environment())
    try:
        address = next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.:]+/", line)))

        def ask(what, plugin="hparams", **question):
            request = urllib.request.Request(f"{address}data/plugin/{plugin}/{what}",
                                             json.dumps(question).encode() if question else None,
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read().decode()
                return text if plugin == "graphs" else json.loads(text)
        yield ask
    finally:
        process.kill()
        process.communicate()


def rows(ask, wanted):
    """Session name to (settings, figures), once TensorBoard has read so many."""
    deadline = time.monotonic() + 60
    while True:
        groups = ask("session_groups", allowedStatuses=["STATUS_UNKNOWN"], startIndex=0, sliceSize=100).get(
            "sessionGroups", [])
        found = {group["name"]: (group["hparams"], {metric["name"]["tag"]: metric["value"]
                                                    for metric in group.get("metricValues", [])}) for group in groups}
        if len(found) == wanted and all(figures for _, figures in found.values()):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.mark.slow
def test_the_table_has_a_row_of_settings_and_figures_for_each_run(swept):
    with tensorboard(swept) as ask:
        found = rows(ask, 2)
        infos = {info["name"]: info for info in ask("experiment", experimentName="")["hparamInfos"]}
    settings, figures = found["optimizer=adam/tensorboard/eval"]
    assert (settings["optimizer"], settings["learning_rate"], settings["max_steps"]) == ("adam", 0.001, 7)
    assert settings["ledger"] is False and settings["augment"] == "none"
    assert "export" not in settings  # what isn't given is not in the table
    assert not {"model_dir", "resume", "data_dir", "validation_fraction"} & settings.keys()
    assert figures["quality/accuracy"] == 0.75 and abs(figures["quality/loss"] - 0.1) < 1e-6
    settings, figures = found["optimizer=sgd/tensorboard/eval"]
    assert settings["augment"] == "flip,crop" and settings["ledger"] is True and "max_steps" not in settings
    assert settings["export"] == "h5,keras"
    assert figures["quality/accuracy"] == 0.25
    assert {name for name, info in infos.items() if info.get("differs")} == {"optimizer", "learning_rate", "augment",
                                                                             "ledger"}


@pytest.mark.slow
def test_the_table_is_there_for_a_single_run_too(swept):
    with tensorboard(swept / "optimizer=sgd/tensorboard") as ask:
        ((name, (settings, figures)),) = rows(ask, 1).items()
        (image,) = ask("images?run=eval&tag=quality%2Fconfusion&sample=0", "images")
        (text,) = ask("text?run=eval&tag=quality%2Fclasses", "text")
        graph = ask("graph?run=train&conceptual=true&tag=keras", "graphs")
    assert image["step"] == 10 and re.findall(r'name: "(cnn3/\w+)"', graph)[:2] == ["cnn3/pixels", "cnn3/scale"]
    assert re.sub(r"\s", "", text["text"]).endswith("<tr><td>&lt;b&gt;_|</td><td>1</td></tr></tbody></table>")
    assert name == "eval" and settings["optimizer"] == "sgd" and figures["quality/accuracy"] == 0.25
