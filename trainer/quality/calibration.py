"""Whether a model is as sure as it is right (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

BINS = 15
_MOST_VALUES = 2**22  # log-probabilities that a temperature is fitted to; it is a single number
_LOG_RANGE = (-3.0, 3.0)  # of the temperature: 0.05 to 20
_GOLDEN = (math.sqrt(5) - 1) / 2


class Reliability(NamedTuple):
    """The bins of a reliability diagram: equal in width, over the confidence from 0 to 1.

    Args:
        examples: int64 [bins].
        confidence: float64 [bins], the mean confidence in the bin; NaN if it is empty.
        accuracy: float64 [bins], the share of right answers in the bin; NaN if it is empty.
    """

    examples: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over the examples of |accuracy - confidence| of their bin."""
        if not self.examples.any():
            return math.nan
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float(np.sum(gaps * self.examples) / np.sum(self.examples))


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """Sorts answers into the bins of a reliability diagram.

    Args:
        confidence: float [n], the probability of the class that was said; what isn't finite is left out.
        correct: bool [n].
        bins: Number of bins; bin i is from i / bins, exclusive, to (i + 1) / bins.
    """
    known = np.isfinite(confidence)
    confidence, correct = confidence[known].astype(np.float64), correct[known]
    indices = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    examples = np.bincount(indices, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(examples, np.bincount(indices, confidence, bins) / examples,
                           np.bincount(indices, correct, bins) / examples)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature T for which softmax(logits / T) has the least cross-entropy (Guo et al. 2017, §4.2).

    The loss is convex in 1 / T, so a search by golden sections finds it.

    Args:
        probabilities: float [n, classes], of examples that neither training nor testing sees.
        labels: int [n].

    Returns:
        T, from 0.05 to 20, rounded to 6 digits; None if the probabilities aren't finite or there are none.
    """
    every = max(1, -(-probabilities.size // _MOST_VALUES))
    # A probability that float16 or float32 can't tell from 0 is taken for the least that float32 can.
    log_p = np.log(np.maximum(probabilities[::every].astype(np.float64), np.finfo(np.float32).tiny))
    labels = labels[::every]
    if not len(labels) or not np.isfinite(log_p).all():
        return None
    low, high = _LOG_RANGE
    while high - low > 1e-7:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _loss(log_p, labels, left) <= _loss(log_p, labels, right):
            high = right
        else:
            low = left
    return float(f"{math.exp((low + high) / 2):.6g}")


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities that the same logits have when they are divided by a temperature: float64 [n, classes]."""
    log_p = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny)) / temperature
    powers = np.exp(log_p - log_p.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _loss(log_p: np.ndarray, labels: np.ndarray, log_temperature: float) -> float:
    """The mean cross-entropy at a temperature."""
    scaled = log_p / math.exp(log_temperature)
    largest = scaled.max(1)
    sums = largest + np.log(np.exp(scaled - largest[:, None]).sum(1))
    return float(np.mean(sums - scaled[np.arange(len(labels)), labels]))
