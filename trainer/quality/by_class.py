"""What is confused with what: the confusion matrix, and precision, recall and F1 of each class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ClassFigures(NamedTuple):
    """Figures of each class; NaN where a figure has no meaning.

    Args:
        examples: int64 [classes], number of examples.
        predicted: int64 [classes], how often the class was said.
        correct: int64 [classes], how often it was said rightly.
        precision: float64 [classes], the share of right answers among those that said the class.
        recall: float64 [classes], the share of the class's examples that were answered correctly.
        f1: float64 [classes], the harmonic mean of both.
    """

    examples: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def macro_f1(self) -> float:
        """The mean of the F1 of the classes that have examples or were said: all count the same, however rare.

        It is the mean of the F1 values, not the F1 of the means (Opitz and Burst 2019, "Macro F1 and Macro F1").
        """
        known = self.f1[~np.isnan(self.f1)]
        return float(known.mean()) if known.size else float("nan")


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often the examples of each class were said to be of each class.

    Args:
        labels, predicted: int [n].
        classes: Number of classes.

    Returns:
        int64 [classes, classes]: a row per label, a column per answer.
    """
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_figures(labels: np.ndarray, predicted: np.ndarray, classes: int) -> ClassFigures:
    """The figures of each class, as scikit-learn's precision_recall_fscore_support defines them.

    Args:
        labels, predicted: int [n].
        classes: Number of classes.
    """
    examples, said = (np.bincount(each, minlength=classes) for each in (labels, predicted))
    correct = np.bincount(labels[labels == predicted], minlength=classes)
    with np.errstate(invalid="ignore"):
        precision, recall, f1 = correct / said, correct / examples, 2 * correct / (examples + said)
    return ClassFigures(examples, said, correct, precision, recall, f1)


def most_confused(labels: np.ndarray, predicted: np.ndarray, most: int = 10) -> list[tuple[int, int, int]]:
    """The pairs of classes that are confused most often.

    Args:
        labels, predicted: int [n].
        most: Number of pairs, at most.

    Returns:
        (label, answer, number of examples) of each pair, the most frequent first.
    """
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], 1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(pairs[row, 0]), int(pairs[row, 1]), int(counts[row])) for row in order]
