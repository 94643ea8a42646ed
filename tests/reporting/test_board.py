"""What TensorBoard shows of an evaluation: figures and a table always, drawings of the last and the best one."""

import dataclasses
import io

import numpy as np
import pytest
from event_files import scalars, values
from PIL import Image

from trainer.data.array_split import ArraySplit
from trainer.quality.figures import figures_of
from trainer.quality.predictions import Predictions
from trainer.reporting.board import drawings, evaluations, tables
from trainer.reporting.board.evaluations import EvaluationBoard
from trainer.reporting.tensorboard import TensorBoardWriter

DRAWINGS = ("quality/confusion", "quality/reliability", "quality/mistakes")
NAMES = ("ash", "pipe|<b>elm</b>", "a very long name of a tree that is an oak")


def said(step, predicted=(0, 1, 2, 0, 1, 1), classes=NAMES):
    """Predictions of six examples of three classes; the surest mistake is example 3."""
    labels, predicted = np.array([0, 1, 2, 1, 1, 2], np.int32), np.array(predicted, np.int32)
    confidence = np.array([0.9, 0.8, 0.7, 0.95, 0.6, 0.5], np.float32)
    return Predictions("test", step, classes, np.arange(6), labels, predicted, confidence,
                       np.where(labels == predicted, 0, 1).astype(np.int32), None)


@pytest.fixture
def board(tmp_path):
    images = np.zeros((6, 4, 4, 3), np.uint8)
    images[:, :, :, 0] = np.arange(10, 70, 10)[:, None, None]
    events = TensorBoardWriter(tmp_path, {})
    yield EvaluationBoard(events, ArraySplit(images, said(0).labels), None), events
    events.close()


def drawn(tmp_path, events, tag):
    events.flush()
    return scalars(tmp_path, "eval", tag)


def test_every_evaluation_has_figures_and_the_last_and_the_best_are_drawn(tmp_path, board):
    board, events = board
    for step, is_best in ((1, True), (2, True), (3, False), (4, False)):
        board.show(said(step), is_best, is_last=step == 4)
    for tag in ("quality/ece", "quality/macro_f1", "quality/classes"):
        assert drawn(tmp_path, events, tag) == [1, 2, 3, 4]
    for tag in DRAWINGS:
        assert drawn(tmp_path, events, tag) == [2, 4]
        # TensorBoard's server drops what it has read of later steps when an earlier one comes.
        assert [step for step, _ in values(tmp_path, "eval", tag)] == [2, 4]
    assert drawn(tmp_path, events, "quality/top5_accuracy") == []  # of three classes it says nothing
    (_, error), *_ = values(tmp_path, "eval", "quality/ece")
    assert error == pytest.approx(figures_of(said(1))["ece"], abs=1e-6)


def test_all_are_drawn_where_that_takes_no_time_to_speak_of(tmp_path, board, monkeypatch):
    monkeypatch.setattr(evaluations, "_MOST_TIME", 1e9)
    board, events = board
    for step in (1, 2, 3):
        board.show(said(step), step == 1, is_last=step == 3)
    for tag in DRAWINGS:
        assert drawn(tmp_path, events, tag) == [1, 2, 3]


def test_without_mistakes_none_are_drawn_and_many_classes_have_no_matrix(tmp_path, board):
    board, events = board
    board.show(said(1, predicted=(0, 1, 2, 1, 1, 2)), True, is_last=True)
    assert drawn(tmp_path, events, "quality/mistakes") == [] and drawn(tmp_path, events, "quality/confusion") == [1]
    board.show(said(2, classes=tuple(map(str, range(101)))), True, is_last=True)
    assert drawn(tmp_path, events, "quality/confusion") == [1] and drawn(tmp_path, events, "quality/mistakes") == [2]
    assert drawn(tmp_path, events, "quality/top5_accuracy") == [2]


def test_what_can_not_be_shown_is_told_once_and_ends_nothing(tmp_path, board):
    board, events = board
    warnings = []
    board._console = type("Console", (), {"warn": staticmethod(warnings.append)})
    gone = dataclasses.replace(said(7), ids=np.arange(6) + 10**6)  # no image has such an id
    for _ in range(2):
        board.show(gone, True, is_last=True)
    (warning,) = warnings
    assert warning.startswith("TensorBoard doesn't show all of the evaluation of step 7 (")
    board.show(said(8), True, is_last=True)
    assert drawn(tmp_path, events, "quality/mistakes") == [8]


def test_drawings_are_images_of_the_mistakes_the_surest_first(tmp_path, board):
    board, events = board
    board.show(said(1), True, is_last=True)
    events.flush()
    ((_, (width, height, png)),) = values(tmp_path, "eval", "quality/mistakes")
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert (int(width), int(height)) == image.size
    corner = drawings._GAP + drawings._PICTURE // 2
    # Examples 3 and 5, whose red is 40 and 60; the others of the row are white.
    for column, color in ((0, (40, 0, 0)), (1, (60, 0, 0)), (2, (255, 255, 255))):
        assert image.getpixel((corner + column * (drawings._PICTURE + drawings._GAP), corner)) == color


@pytest.mark.parametrize("shape", [(300, 200, 3), (2, 2, 1), (1, 90, 4), (8, 8, 7)])
def test_images_of_any_form_are_on_the_sheet(shape):
    images = np.full((5, *shape), 200, np.uint8)
    sheet = np.asarray(drawings.mistakes_sheet(said(1), [0, 1, 2, 3, 4], images))
    assert sheet.shape[1] == 4 * 136 + 8 and sheet.shape[0] == 2 * (128 + 51 + 8) + 8
    assert (sheet == 200).all(-1).sum() >= 5 * 128


def test_a_bar_of_the_reliability_diagram_is_as_high_as_its_accuracy():
    image = np.asarray(drawings.reliability_diagram([{"from": 0.8, "to": 1.0, "accuracy": 0.5, "confidence": 0.9}]))
    bar = (image == drawings._BAR).all(-1)
    rows, columns = np.flatnonzero(bar.any(1)), np.flatnonzero(bar.any(0))
    assert abs(np.ptp(rows) - drawings._SIDE / 2) <= 1 and abs(np.ptp(columns) - drawings._SIDE / 5) <= 2


def test_the_table_of_classes_has_the_worst_first_and_names_are_text():
    lines = tables.class_table(figures_of(said(1))).splitlines()
    assert lines[0] == "| class | examples | recall | 95 % interval | precision | F1 |"
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| a very long name of a tree that is an oak", r"| pipe\|&lt;b&gt;elm&lt;/b&gt;", "| ash"]
    assert lines[2].split(" | ")[2] == "50.00%"
    assert {line.count(" | ") for line in lines[:5]} == {5}
    assert lines[-2:] == [r"| pipe\|&lt;b&gt;elm&lt;/b&gt; | ash | 1 |",
                          r"| a very long name of a tree that is an oak | pipe\|&lt;b&gt;elm&lt;/b&gt; | 1 |"]


def test_a_table_of_many_classes_ends_with_their_number():
    table = tables.class_table(figures_of(said(1, classes=tuple(map(str, range(150))))))
    assert "and 50 more classes" in table


def test_settings_are_a_table():
    assert tables.settings_table({"model": "a_b", "augment": ("flip", "crop"), "max_steps": None, "ledger": False}) == (
        "| setting | value |\n| --- | --- |\n| model | a\\_b |\n| augment | flip,crop |\n| max\\_steps | – |\n"
        "| ledger | False |")
