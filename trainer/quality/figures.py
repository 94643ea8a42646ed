"""The figures of a set of predictions, as result.json holds them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainer.quality import calibration
from trainer.quality.by_class import ClassFigures, class_figures, confusion_matrix, most_confused
from trainer.quality.intervals import CONFIDENCE, wilson
from trainer.quality.predictions import Predictions

_TOP5_ABOVE = 10  # classes
_MATRIX_UP_TO = 100  # classes; predictions.npz has what a larger one is made of


def figures_of(predictions: Predictions, temperature: float | None = None) -> dict[str, Any]:
    """How good predictions are.

    Args:
        predictions: On a split.
        temperature: What the logits are divided by for the calibrated figures, fitted on the validation split; None
            where there is none.

    Returns:
        A dict of what JSON can hold: split, step, examples, accuracy and accuracy_interval, confidence (of all
        intervals), macro_f1, top5_accuracy and top5_interval (with over 10 classes), ece and reliability,
        calibrated_ece, by_class, most_confused, and confusion (up to 100 classes: a row per label, a column per
        answer). A figure without meaning is null.
    """
    labels, predicted, classes = predictions.labels, predictions.predicted, predictions.classes
    each = class_figures(labels, predicted, len(classes))
    bins = calibration.reliability(predictions.confidence, predictions.correct)
    result = {"split": predictions.split, "step": predictions.step, "examples": len(labels),
              "confidence": CONFIDENCE, **_share("accuracy", predictions.correct), "macro_f1": _number(each.macro_f1)}
    if len(classes) > _TOP5_ABOVE:
        result |= _share("top5_accuracy", predictions.rank < 5)
    result |= {"ece": _number(bins.error), "calibrated_ece": _calibrated_ece(predictions, temperature),
               "reliability": _bins(bins), "by_class": _by_class(each, classes),
               "most_confused": [{"class": classes[label], "answer": classes[answer], "examples": count}
                                 for label, answer, count in most_confused(labels, predicted)]}
    if len(classes) <= _MATRIX_UP_TO:
        result["confusion"] = confusion_matrix(labels, predicted, len(classes)).tolist()
    return result


def _share(name: str, correct: np.ndarray) -> dict[str, Any]:
    """The share of right answers, and its interval."""
    count = int(np.sum(correct))
    return {name: count / len(correct), f"{name.removesuffix('_accuracy')}_interval": _interval(count, len(correct))}


def _interval(correct: int, examples: int) -> list[float]:
    return [round(float(bound), 6) for bound in wilson(correct, examples)]


def _calibrated_ece(predictions: Predictions, temperature: float | None) -> float | None:
    """The calibration error of the same logits divided by the temperature."""
    if temperature is None or predictions.probabilities is None:
        return None
    confidence = calibration.at_temperature(predictions.probabilities, temperature).max(1)
    return _number(calibration.reliability(confidence, predictions.correct).error)


def _bins(bins: calibration.Reliability) -> list[dict[str, Any]]:
    """The reliability diagram's bins that aren't empty."""
    width = 1 / len(bins.examples)
    return [{"from": round(index * width, 4), "to": round((index + 1) * width, 4), "examples": int(count),
             "confidence": _number(bins.confidence[index]), "accuracy": _number(bins.accuracy[index])}
            for index, count in enumerate(bins.examples) if count]


def _by_class(each: ClassFigures, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Name of a class to its figures; the accuracy on its examples is its recall."""
    return {name: {"examples": int(each.examples[label]), "recall": _number(each.recall[label]),
                   "recall_interval": _interval(int(each.correct[label]), int(each.examples[label])),
                   "precision": _number(each.precision[label]), "f1": _number(each.f1[label])}
            for label, name in enumerate(classes)}


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None  # JSON knows no NaN
