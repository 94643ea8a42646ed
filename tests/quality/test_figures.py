"""The figures of predictions, against scikit-learn's and by hand."""

import json

import numpy as np
import pytest

from trainer.errors import DataError
from trainer.quality import calibration
from trainer.quality.by_class import class_figures, confusion_matrix, most_confused
from trainer.quality.figures import figures_of
from trainer.quality.predictions import Predictions

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 0])
PREDICTED = np.array([0, 0, 1, 2, 1, 1, 0, 2, 2, 2, 1, 0, 0, 0])


def made(labels, probabilities, classes=None):
    """Predictions of given probabilities, as an evaluation makes them."""
    probabilities = np.asarray(probabilities, np.float32)
    labels = np.asarray(labels, np.int32)
    own = probabilities[np.arange(len(labels)), labels]
    with np.errstate(divide="ignore"):
        answers = np.column_stack([probabilities.argmax(1), np.log(probabilities.max(1)),
                                   (probabilities > own[:, None]).sum(1), np.log(probabilities)]).astype(np.float32)
    return Predictions.from_answers(answers, np.arange(len(labels)), labels, split="test", step=7,
                                    classes=classes or [f"class {each}" for each in range(probabilities.shape[1])])


def drawn(examples=200, classes=4, seed=7):
    """(labels, probabilities) of a model that is too sure."""
    dice = np.random.default_rng(seed)
    labels, logits = dice.integers(0, classes, examples), dice.normal(size=(examples, classes)) * 3
    logits[np.arange(examples), labels] += 2.0
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return labels, powers / powers.sum(1, keepdims=True)


def test_confusion_and_the_figures_of_each_class():
    assert confusion_matrix(LABELS, PREDICTED, 4).tolist() == [[3, 1, 1, 0], [1, 2, 0, 0], [1, 1, 3, 0], [1, 0, 0, 0]]
    each = class_figures(LABELS, PREDICTED, 4)
    # sklearn.metrics.precision_recall_fscore_support; where that says 0, a class that was never said has no precision
    assert each.precision[:3] == pytest.approx([0.5, 0.5, 0.75]) and np.isnan(each.precision[3])
    assert each.recall == pytest.approx([0.6, 2 / 3, 0.6, 0])
    assert each.f1 == pytest.approx([0.5454545454545454, 0.5714285714285714, 2 / 3, 0])
    assert each.macro_f1 == pytest.approx(0.4458874458874459)
    assert each.examples.tolist() == [5, 3, 5, 1] and each.correct.tolist() == [3, 2, 3, 0]


def test_a_class_that_never_occurs_does_not_count():
    assert class_figures(LABELS, PREDICTED, 9).macro_f1 == pytest.approx(0.4458874458874459)
    assert np.isnan(class_figures(LABELS[:0], PREDICTED[:0], 3).macro_f1)


def test_the_most_confused_come_first():
    labels, predicted = np.array([2, 2, 2, 0, 1, 1, 0]), np.array([1, 1, 1, 0, 2, 2, 2])
    assert most_confused(labels, predicted) == [(2, 1, 3), (1, 2, 2), (0, 2, 1)]
    assert most_confused(labels, predicted, 1) == [(2, 1, 3)] and most_confused(labels, labels) == []


def test_the_bins_of_a_reliability_diagram_and_their_error():
    # By hand: (0, 1/15]: none; 0.9 is in (13/15, 14/15]; 1 is in the last; 0.2 is in (2/15, 3/15].
    bins = calibration.reliability(np.array([0.9, 0.92, 0.88, 1.0, 0.2]), np.array([1, 1, 0, 0, 1], bool))
    assert bins.examples.tolist() == [0, 0, 1] + [0] * 10 + [3, 1]
    assert bins.accuracy[[2, 13, 14]].tolist() == [1, pytest.approx(2 / 3), 0]
    assert bins.error == pytest.approx((0.8 * 1 + (0.9 - 2 / 3) * 3 + 1 * 1) / 5)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error():
    confidence = np.full(1000, 0.75)
    assert calibration.reliability(confidence, np.arange(1000) % 4 > 0).error == pytest.approx(0, abs=1e-12)


def test_the_temperature_is_that_of_the_least_loss():
    labels, probabilities = drawn()
    # scipy.optimize.minimize_scalar over the logits' cross-entropy
    assert calibration.fit_temperature(probabilities, labels) == pytest.approx(4.0336392783766835, rel=1e-5)
    softened = calibration.at_temperature(probabilities, 4.0336392783766835)
    assert -np.mean(np.log(softened[np.arange(200), labels])) == pytest.approx(1.210929828308179, rel=1e-9)
    assert (softened.argmax(1) == probabilities.argmax(1)).all()
    assert calibration.fit_temperature(softened, labels) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("probabilities", [np.full((3, 2), np.nan), np.zeros((0, 2))])
def test_nothing_is_fitted_to_what_is_no_probability(probabilities):
    assert calibration.fit_temperature(probabilities, np.zeros(len(probabilities), int)) is None


def test_all_figures_are_json():
    labels, probabilities = drawn()
    figures = figures_of(made(labels, probabilities), 4.0336)
    assert json.loads(json.dumps(figures)) == figures
    correct = (probabilities.argmax(1) == labels)
    assert figures["accuracy"] == correct.mean() and (figures["split"], figures["step"]) == ("test", 7)
    assert figures["accuracy_interval"][0] < correct.mean() < figures["accuracy_interval"][1]
    assert figures["calibrated_ece"] < figures["ece"] / 3
    assert sum(row["examples"] for row in figures["reliability"]) == 200 == sum(map(sum, figures["confusion"]))
    assert figures["by_class"]["class 2"]["examples"] == (labels == 2).sum() and "top5_accuracy" not in figures


def test_top_5_with_over_10_classes():
    labels, probabilities = drawn(classes=11)
    figures = figures_of(made(labels, probabilities))
    ranked = probabilities.argsort(1)[:, ::-1][:, :5]
    assert figures["top5_accuracy"] == np.mean((ranked == labels[:, None]).any(1)) > figures["accuracy"]
    assert figures["top5_interval"][1] < 1 and figures["calibrated_ece"] is None


def test_probabilities_that_are_not_finite_have_no_figures():
    broken = made([0, 1], [[0.5, 0.5], [0.1, 0.9]])
    broken.confidence[:] = np.nan
    figures = figures_of(broken)
    assert figures["ece"] is None and figures["reliability"] == [] and figures["accuracy"] == 1
    json.dumps(figures, allow_nan=False)


def test_predictions_survive_a_file(tmp_path):
    labels, probabilities = drawn()
    before = made(labels, probabilities, ["a", "b", "<c>", "ü"])
    before.write(tmp_path / "predictions.npz")
    after = Predictions.read(tmp_path / "predictions.npz")
    for name, value in vars(before).items():
        np.testing.assert_array_equal(getattr(after, name), value)
    assert after.classes == before.classes
    again = tmp_path / "again.npz"
    before.write(again)
    assert again.read_bytes() == (tmp_path / "predictions.npz").read_bytes()  # no time in it


def test_rows_come_in_the_order_of_their_ids_without_padding():
    answers = np.array([[1, -0.1, 0], [-1, 0, 0], [0, -0.2, 1], [1, -0.3, 2]], np.float32)
    found = Predictions.from_answers(answers, np.array([2, 3, 0, 1]), np.array([5, 6, 7, 8]), split="test", step=1,
                                     classes=("a", "b"))
    assert found.ids.tolist() == [0, 1, 2] and found.labels.tolist() == [5, 6, 7]
    assert found.predicted.tolist() == [0, 1, 1] and found.rank.tolist() == [1, 2, 0] and found.probabilities is None


def test_many_probabilities_take_half_the_bytes(monkeypatch):
    monkeypatch.setattr("trainer.quality.predictions._MOST_FLOAT32", 100)
    assert made(*drawn()).probabilities.dtype == np.float16


@pytest.mark.parametrize("damage", [b"", b"PK\3\4", b"not a zip file at all"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "predictions.npz"
    path.write_bytes(damage)
    with pytest.raises(DataError, match="predictions.npz is damaged"):
        Predictions.read(path)
    with pytest.raises(DataError, match="there is no"):
        Predictions.read(tmp_path / "none.npz")


def test_a_cut_off_file_is_damaged(tmp_path):
    path = tmp_path / "predictions.npz"
    made(*drawn()).write(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 997):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="is damaged"):
            Predictions.read(path)
