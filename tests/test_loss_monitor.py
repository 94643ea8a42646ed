"""The loss monitor: jumps and skipped steps, with their examples."""

import numpy as np
import pytest

from trainer.config import Config
from trainer.errors import DivergedError
from trainer.train.loss_monitor import LossMonitor


def check(monitor, losses, first=1):
    return [monitor.check(first + number, loss, 0 if np.isfinite(loss) else 1) for number, loss in enumerate(losses)]


def test_a_jump_is_found_with_its_examples():
    monitor = LossMonitor(Config(spike_factor=5.0), "float32", lambda step: [step, step + 1])
    losses = [1 + 0.01 * (step % 7) for step in range(40)]
    losses[30] = 7.0
    found = [event for event in check(monitor, losses) if event]
    assert found == [{"event": "spike", "step": 31, "loss": 7.0, "median": pytest.approx(1.03), "ids": [31, 32]}]
    assert monitor.pop_events() == found and not monitor.pop_events()


def test_the_median_is_the_median_of_the_last_101_finite_losses():
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=400)
    losses[::17] = np.nan
    monitor, finite = LossMonitor(Config(spike_factor=1.0), "float32", lambda step: []), []
    for step, loss in enumerate(losses.tolist()):
        event = monitor.check(step, loss, 0)
        recent = finite[-101:]
        expected = len(recent) >= 20 and loss > max(sorted(recent)[len(recent) // 2], 0.5)
        assert bool(event) == expected
        finite += [loss] if np.isfinite(loss) else []
    assert monitor.recent == finite[-101:]


def test_a_memorized_data_set_has_no_jumps():
    """One image of a batch of 64 that a model of next to no loss gets wrong is no jump of the loss."""
    monitor = LossMonitor(Config(), "float32", lambda step: [step])
    assert not any(check(monitor, [0.005] * 100 + [0.0626, 0.4]))
    assert monitor.check(103, 0.6, 0)["event"] == "spike"


def test_going_on_finds_the_same():
    losses = np.random.default_rng(1).exponential(size=200).tolist()
    whole, first = (LossMonitor(Config(spike_factor=2.0), "float32", lambda step: [step]) for _ in range(2))
    expected = check(whole, losses)
    found = check(first, losses[:77])
    second = LossMonitor(Config(spike_factor=2.0), "float32", lambda step: [step], first.recent)
    assert found + check(second, losses[77:], 78) == expected
    assert any(expected)


def test_skipped_steps_are_found_and_nothing_at_the_start_or_when_it_is_off():
    monitor = LossMonitor(Config(spike_factor=2.0), "float32", lambda step: [step])
    assert check(monitor, [1.0, 99.0, 1.0]) == [None] * 3
    assert monitor.check(4, float("inf"), 3) == {"event": "skipped", "step": 4, "loss": None, "in_row": 3, "ids": [4]}
    assert not any(check(LossMonitor(Config(spike_factor=0.0), "float32", lambda step: [step]), [1.0] * 50 + [1e6]))


@pytest.mark.parametrize("precision, told", [("float32", [1]), ("float16", [5])])
def test_a_streak_is_told_once_and_ends_the_run_in_the_end(precision, told):
    monitor = LossMonitor(Config(max_bad_steps=8), precision, lambda step: [step, 70])
    events = [monitor.check(step, float("nan"), step) for step in range(1, 9)]
    assert [event["in_row"] for event in events if monitor.should_report(event)] == told
    for event in events[:7]:
        monitor.raise_if_diverged(event)
    with pytest.raises(DivergedError, match=r"8 steps in a row, up to step 8 .*The last one's examples: 8, 70"):
        monitor.raise_if_diverged(events[7])
