"""MODEL_CARD.md: what it says, and that no name in it is anything else than text."""

import json

import numpy as np
import pytest
import yaml
from finished_runs import predictions, write_run

from trainer.export.card.model_card import ModelCard, plain, recipe_flags
from trainer.quality.figures import figures_of
from trainer.quality.intervals import wilson

CLASSES = ("cat", "a|b\n# <script>", "`*x*` [y](z)", "\udcff")
EXPORTS = {"h5": {"path": "export/model.h5", "accuracy": 0.75, "bytes": 1_234_567, "weights": {"step": 60}},
           "onnx": {"path": "export/model.onnx", "bytes": 2_000_000, "weights": {"step": 50}}}


@pytest.fixture
def record(tmp_path):
    """What config.json holds of a run."""
    write_run(tmp_path / "secret/run", predictions(np.arange(60) % 4 > 0, classes=CLASSES), augment=("flip", "crop"),
              label_smoothing=0.1, model="mine:build", data_dir=str(tmp_path / "secret/data"),
              init_from=str(tmp_path / "secret/other run"), epochs=7.0)
    found = json.loads((tmp_path / "secret/run/config.json").read_text())
    return {**found, "replicas": 2}


def card_of(record, **more):
    said = predictions(np.arange(60) % 4 > 0, classes=CLASSES)
    return ModelCard(record, 60, figures_of(said), **more).text(EXPORTS, None)


def table_of(text, head):
    """The cells of the table that begins with a head."""
    lines = text[text.index(head):].split("\n\n")[0].splitlines()
    return [line.strip("| ").split(" | ") for line in lines]


def test_it_has_accuracy_with_its_interval_and_every_class(record):
    text = card_of(record)
    low, high = wilson(45, 60)
    assert f"**75.00%** of the 60 images of the test split; 95 % interval (Wilson)\n{low:.2%} to {high:.2%}." in text
    rows = table_of(text, "| class | images |")
    assert [row[0] for row in rows[2:]] == [plain(name) for name in CLASSES]
    correct = np.sum((np.arange(60) % 4 > 0) & (np.arange(60) % 4 == 1))
    low, high = wilson(correct, 15)
    assert rows[3][1:4] == ["15", f"{correct / 15:.1%}", f"{low:.1%} to {high:.1%}"]
    assert "Fewer than 30 images were measured of cat, " in text


def test_its_first_lines_are_what_hubs_read(record):
    front = yaml.safe_load(card_of(record).split("---\n")[1])
    assert (front["pipeline_tag"], front["library_name"]) == ("image-classification", "keras")
    (model,) = front["model-index"]
    (result,) = model["results"]
    assert (model["name"], result["dataset"]["name"], result["dataset"]["split"]) == ("mine:build", "shapes", "test")
    assert result["task"]["type"] == "image-classification"
    assert result["metrics"] == [{"type": "accuracy", "name": "Accuracy", "value": 0.75}]


def test_names_are_text_and_no_folder_is_told(record):
    text = card_of(record, initialized_from={"path": record["given"]["init_from"], "step": 1234})
    assert r"a\|b \# \<script\>" in text and r"\`\*x\*\` \[y\](z)" in text and "<script>" not in text
    assert "secret" not in text and "| weights at the start | other run, step 1,234 |" in text


def test_the_recipe_is_the_flags_that_make_the_run(record):
    flags = recipe_flags(record["given"])
    assert {"--augment=flip,crop", "--label_smoothing=0.1", "--model=mine:build", "--init_from='other run'",
            "--epochs=7.0"} <= set(flags)
    assert not [flag for flag in flags if flag.startswith(("--model_dir", "--data_dir", "--learning_rate"))]
    assert f"python -m trainer.main {' '.join(flags)}" in card_of(record)


def test_it_says_what_chose_the_weights(record):
    assert "The test split also chose these weights" in card_of(record, selected_on="test")
    chosen = card_of(record, selected_on="validation")
    assert "The validation split chose these weights; the test split had no part in it." in chosen
    assert "chose these weights" not in card_of(record)


def test_without_figures_it_says_so(record):
    text = ModelCard(record, 60).text(EXPORTS, 1.5)
    assert "Not measured: the data" in text and "| class |" not in text and "model-index" not in text
    assert "logits divided by 1.5" in text
    rows = table_of(text, "| format | file |")
    assert rows[2:] == [["h5", "`model.h5`", "75.00%", "1.23", "60"], ["onnx", "`model.onnx`", "–", "2.00", "50"]]
