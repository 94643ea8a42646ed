"""Labels that are likely wrong, by what a model said of images that it was not trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class WrongLabels(NamedTuple):
    """Examples whose labels are likely wrong, the most suspicious first.

    Args:
        rows: Rows of the predictions: int64 [n].
        suggested: The class that each is likelier of: int64 [n].
        margins: The label's probability less that of the suggested class, -1 to 1: float64 [n], ascending.
    """

    rows: np.ndarray
    suggested: np.ndarray
    margins: np.ndarray


def likely_wrong(probabilities: np.ndarray, labels: np.ndarray) -> WrongLabels:
    """Confident learning (Northcutt, Jiang & Chuang 2021, arXiv:1911.00068, equations 1 and 2).

    A class's threshold is the mean probability that the model gives it on the examples with its label. An example
    counts as of the likeliest class of those whose thresholds it reaches. Its label is likely wrong if that is another.
    A model that is surer of one class than of another is so held to each by its own measure.

    Args:
        probabilities: float [n, classes], of examples that the model was not trained on.
        labels: int [n].
    """
    values = probabilities.astype(np.float64)
    rows = np.flatnonzero(np.isfinite(values).all(1))
    values, labels = values[rows], np.asarray(labels)[rows]
    count = np.bincount(labels, minlength=values.shape[1])
    own = values[np.arange(len(rows)), labels]
    thresholds = np.bincount(labels, own, values.shape[1]) / np.maximum(count, 1)
    # Of a class without examples nothing says how sure the model is of it.
    reached = (values >= thresholds) & (count > 0)
    suggested = np.where(reached, values, -1).argmax(1)
    wrong = np.flatnonzero(reached.any(1) & (suggested != labels))
    margins = own[wrong] - values[wrong, suggested[wrong]]
    order = np.argsort(margins, kind="stable")
    return WrongLabels(rows[wrong[order]], suggested[wrong[order]], margins[order])
