"""Intervals and paired tests, against scipy's figures and by hand."""

import numpy as np
import pytest

from trainer.quality.intervals import mcnemar, wilson

# scipy.stats.binomtest(correct, examples).proportion_ci(0.95, method="wilson")
WILSON = {(8, 10): (0.4901624715366418, 0.9433178485456248), (0, 20): (0.0, 0.16112515805281935),
          (20, 20): (0.8388748419471808, 1.0), (6830, 10000): (0.6738113507371284, 0.6920481058592041),
          (1, 3): (0.06149194472039626, 0.7923403991979523)}
# exact: scipy.stats.binomtest; mid-p: that less the probability of the outcome (a half of it where both are equal)
MCNEMAR = {(10, 2): (0.03857421875, 0.0224609375), (59, 6): (4.964650327128616e-12, 2.7258031986068867e-12),
           (3, 3): (1.0, 0.84375), (123, 150): (0.11541788065178855, 0.10268910822792537), (0, 1): (1.0, 0.5),
           (0, 0): (1.0, 1.0)}


@pytest.mark.parametrize("counts", WILSON)
def test_the_interval_of_an_accuracy(counts):
    assert wilson(*counts) == pytest.approx(WILSON[counts], abs=1e-12)


def test_intervals_of_many_at_once():
    lower, upper = wilson(*zip(*WILSON, strict=True))
    assert list(zip(lower, upper, strict=True)) == [pytest.approx(bounds, abs=1e-12) for bounds in WILSON.values()]


def test_without_examples_anything_is_possible():
    assert wilson(0, 0) == (0, 1)


def test_about_95_of_100_intervals_hold_the_truth():
    correct = np.random.default_rng(0).binomial(200, 0.8, 5000)
    lower, upper = wilson(correct, np.full(5000, 200))
    assert 0.94 < np.mean((lower <= 0.8) & (upper >= 0.8)) < 0.965


@pytest.mark.parametrize("counts", MCNEMAR)
def test_two_models_on_the_same_examples(counts):
    result = mcnemar(*counts)
    assert (result["exact_p"], result["mid_p"]) == pytest.approx(MCNEMAR[counts], rel=1e-9)
    assert mcnemar(*reversed(counts)) == result


def test_many_differences_take_no_time():
    assert 0.9 < mcnemar(50_000, 50_010)["mid_p"] < 1
