"""How sure a figure is: the interval of an accuracy, and whether two models differ on the same examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CONFIDENCE = 0.95
_Z = 1.959963984540054  # of the normal distribution: 2.5 % on either side


def wilson(correct: Any, examples: Any) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of an accuracy (Wilson 1927, "Probable inference, the law of succession, and statistical
    inference"), which holds for few examples and for accuracies near 0 and 1, too.

    Args:
        correct: Number of examples that were answered correctly; a number or an array of any shape.
        examples: Number of examples, of the same shape.

    Returns:
        (lower, upper), float64 of the same shape, from 0 to 1; (0, 1) where there are no examples.
    """
    correct, examples = np.asarray(correct, np.float64), np.asarray(examples, np.float64)
    count = np.maximum(examples, 1)
    share = correct / count
    center = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    # At 0 and at 1 the bound is exactly that; rounding would leave a trace of 1e-17.
    lower = np.where(correct == 0, 0.0, np.maximum(center - half, 0.0))
    upper = np.where(correct == examples, 1.0, np.minimum(center + half, 1.0))
    return np.where(examples > 0, lower, 0.0), np.where(examples > 0, upper, 1.0)


def mcnemar(only_first: int, only_second: int) -> dict[str, float]:
    """Whether two models differ on the same examples: McNemar's test (1947), exact and mid-p.

    Only the examples that one of them answers correctly and the other doesn't tell; if the models are equally good,
    each is as likely to be the first's as the second's. The mid-p form is the one to use: the exact form is too
    careful (Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data").

    Args:
        only_first: Number of examples that only the first model answers correctly.
        only_second: Number of examples that only the second answers correctly.

    Returns:
        A dict of the two-sided p values exact_p and mid_p, from 0 to 1.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    if not count:
        return {"exact_p": 1.0, "mid_p": 1.0}
    if only_first == only_second:
        return {"exact_p": 1.0, "mid_p": 1.0 - _binomial(fewer, count) / 2}
    tail = math.fsum(_binomial(each, count) for each in range(fewer + 1))
    return {"exact_p": min(1.0, 2 * tail), "mid_p": min(1.0, 2 * tail - _binomial(fewer, count))}


def _binomial(successes: int, trials: int) -> float:
    """The probability of so many successes in trials of a fair coin."""
    return math.exp(math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
                    - trials * math.log(2))
