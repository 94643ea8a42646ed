"""The loss monitor: jumps and skipped steps, with their examples."""

import numpy as np
import pytest

from trainer.config import Config
from trainer.errors import DivergedError
from trainer.train.loss_monitor import LossWatch


def look(watch, losses, first=1):
    return [watch.look(first + number, loss, 0 if np.isfinite(loss) else 1) for number, loss in enumerate(losses)]


def test_a_jump_is_found_with_its_examples():
    watch = LossWatch(Config(spike_factor=5.0), "float32", lambda step: [step, step + 1])
    losses = [1 + 0.01 * (step % 7) for step in range(40)]
    losses[30] = 7.0
    found = [event for event in look(watch, losses) if event]
    assert found == [{"event": "spike", "step": 31, "loss": 7.0, "median": pytest.approx(1.03), "ids": [31, 32]}]
    assert watch.take_found() == found and not watch.take_found()


def test_the_median_is_the_median_of_the_last_101_finite_losses():
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=400)
    losses[::17] = np.nan
    watch, finite = LossWatch(Config(spike_factor=1.0), "float32", lambda step: []), []
    for step, loss in enumerate(losses.tolist()):
        event = watch.look(step, loss, 0)
        recent = finite[-101:]
        expected = len(recent) >= 20 and loss > sorted(recent)[len(recent) // 2]
        assert bool(event) == expected
        finite += [loss] if np.isfinite(loss) else []
    assert watch.recent == finite[-101:]


def test_going_on_finds_the_same():
    losses = np.random.default_rng(1).exponential(size=200).tolist()
    whole, first = (LossWatch(Config(spike_factor=2.0), "float32", lambda step: [step]) for _ in range(2))
    expected = look(whole, losses)
    found = look(first, losses[:77])
    second = LossWatch(Config(spike_factor=2.0), "float32", lambda step: [step], first.recent)
    assert found + look(second, losses[77:], 78) == expected
    assert any(expected)


def test_skipped_steps_are_found_and_nothing_at_the_start_or_when_it_is_off():
    watch = LossWatch(Config(spike_factor=2.0), "float32", lambda step: [step])
    assert look(watch, [1.0, 99.0, 1.0]) == [None] * 3
    assert watch.look(4, float("inf"), 3) == {"event": "skipped", "step": 4, "loss": None, "in_row": 3, "ids": [4]}
    assert not any(look(LossWatch(Config(spike_factor=0.0), "float32", lambda step: [step]), [1.0] * 50 + [1e6]))


@pytest.mark.parametrize("precision, told", [("float32", [1]), ("float16", [5])])
def test_a_streak_is_told_once_and_ends_the_run_in_the_end(precision, told):
    watch = LossWatch(Config(max_bad_steps=8), precision, lambda step: [step, 70])
    events = [watch.look(step, float("nan"), step) for step in range(1, 9)]
    assert [event["in_row"] for event in events if watch.is_news(event)] == told
    for event in events[:7]:
        watch.require_bearable(event)
    with pytest.raises(DivergedError, match=r"8 steps in a row, up to step 8; .*The last one's examples: 8, 70"):
        watch.require_bearable(events[7])
