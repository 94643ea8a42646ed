"""Folders as finished runs leave them, made in a moment: what the commands and pages read of a run."""

import json
from typing import NamedTuple

import numpy as np

from trainer.config import Config
from trainer.quality.figures import figures_of
from trainer.quality.predictions import Predictions
from trainer.reporting import jsonl
from trainer.reporting.page import report
from trainer.reporting.timeline.goodput import goodput, starts_of

CLASSES = ("cat", "<b>dog</b>", "bird & co")
SENT = "<script>alert(1)</script>"  # a name that must stay text
TIMELINE = [{"time": 1.7e9 + elapsed, "elapsed": elapsed, "step": step, **more} for elapsed, step, more in (
    (0.0, 0, {"event": "start"}), (2.0, 0, {"event": "resume"}), (3.0, 0, {"event": "phase", "phase": "training"}),
    (9.0, 60, {"event": "save"}), (9.5, 60, {"event": "phase", "phase": "evaluating"}),
    (10.0, 60, {"event": "stop", "code": 0, "cause": SENT}))]


def predictions(right, seed=0, classes=CLASSES):
    """Answers to 60 examples, of which some are right: bool [60]."""
    dice = np.random.default_rng(seed)
    labels = np.arange(60) % len(classes)
    probabilities = dice.dirichlet([1] * len(classes), 60).astype(np.float32)
    probabilities.sort(1)
    predicted = np.where(right, labels, (labels + 1) % len(classes))
    best = probabilities[:, -1].copy()
    probabilities[:, -1] = probabilities[np.arange(60), predicted]
    probabilities[np.arange(60), predicted] = best
    return Predictions("test", 60, classes, np.arange(60), labels.astype(np.int32), predicted.astype(np.int32), best,
                       np.where(right, 0, 1).astype(np.int32), probabilities)


def write_run(folder, said, **settings):
    """Writes the folder of a run with these predictions and settings; returns what its result.json holds."""
    folder.mkdir(parents=True)
    config = Config(**{"dataset": "shapes", "model_dir": str(folder), **settings})
    given = json.loads(config.to_json())
    data = {"name": "shapes", "fingerprint": "sha256:0", "classes": list(said.classes), "image_shape": [8, 8, 3],
            "held_back": False, "train_examples": 600, "test_examples": 60, "parts": {"test": "00"}}
    (folder / "config.json").write_text(json.dumps({
        **given, "given": given, "data": data, "devices": ["/device:CPU:0"], "precision": "float32", "xla": "off",
        "strategy": "OneDeviceStrategy", "versions": {"lockstep": "0.2.0"}}))
    evaluation = {"split": "eval", "step": 60, "epoch": 1.0, "loss": 0.5, "accuracy": said.accuracy, "examples": 60,
                  "train_loss": 0.4, "train_accuracy": 0.9}
    result = {"eval_accuracy": said.accuracy, "eval_loss": 0.5, "eval_split": "test", "selected_on": None,
              "test_accuracy": said.accuracy, "step": 60, "exported_step": 60, "epoch": 1.0,
              "images_per_second": 1234.5, "replicas": 1, "wall_seconds": 10.0, "ended_early": None,
              "exports": {"h5": {"path": "export/model.h5", "accuracy": said.accuracy, "examples": 60, "bytes": 10**6,
                                 "latency": {"device": "CPU", "threads": 2, "batch_1": {"ms": 1.2345, "calls": 50},
                                             "batch_32": {"ms": 12.345, "calls": 9}}},
                          "keras": {"path": "export/model.keras", "accuracy": said.accuracy, "examples": 60,
                                    "bytes": 10**6}},
              "goodput": goodput(starts_of(TIMELINE)), "quality": {**figures_of(said), "temperature": None}}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (
        {"split": "train", "step": 30, "epoch": 0.5, "loss": 1.0, "accuracy": 0.5}, evaluation)))
    (folder / "timeline.jsonl").write_text("".join(json.dumps(line) + "\n" for line in TIMELINE))
    said.write(folder / "predictions.npz")
    return result


class Samples(NamedTuple):
    before: np.ndarray
    after: np.ndarray
    names: list
    names_after: list


def page(tmp_path, right, **settings):
    """(the text of a run's page, what its result.json holds)."""
    said = predictions(np.asarray(right))
    result = write_run(tmp_path / "run", said, **settings)
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    rows = report.worst_mistakes(said)
    mistakes = report.pictures_of(said, rows, images[:len(rows)], [f"{SENT}{row}.png" for row in rows])
    text = report.report_page(
        name=SENT, config=json.loads((tmp_path / "run/config.json").read_text()), result=result,
        metrics=jsonl.read(tmp_path / "run/metrics.jsonl"), starts=starts_of(TIMELINE), mistakes=mistakes,
        samples=Samples(images[:2], images[2:4], [SENT, "a"], ["62% <i>, 38% b", "b"]))
    return text, result
