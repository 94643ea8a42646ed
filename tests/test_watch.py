import numpy as np
import pytest

from trainer.watch import LossWatch


def look(watch, losses, first=1):
    return [watch.look(first + number, loss, 0 if np.isfinite(loss) else 1) for number, loss in enumerate(losses)]


def test_a_jump_is_found_with_its_examples():
    watch = LossWatch(5.0, lambda step: [step, step + 1])
    losses = [1 + 0.01 * (step % 7) for step in range(40)]
    losses[30] = 7.0
    found = [event for event in look(watch, losses) if event]
    assert found == [{"event": "spike", "step": 31, "loss": 7.0, "median": pytest.approx(1.03), "ids": [31, 32]}]
    assert watch.take_found() == found and not watch.take_found()


def test_the_median_is_the_median_of_the_last_101_finite_losses():
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=400)
    losses[::17] = np.nan
    watch, finite = LossWatch(1.0, lambda step: []), []
    for step, loss in enumerate(losses.tolist()):
        event = watch.look(step, loss, 0)
        recent = finite[-101:]
        expected = len(recent) >= 20 and loss > sorted(recent)[len(recent) // 2]
        assert bool(event) == expected
        finite += [loss] if np.isfinite(loss) else []
    assert watch.recent == finite[-101:]


def test_going_on_finds_the_same():
    losses = np.random.default_rng(1).exponential(size=200).tolist()
    whole, first = (LossWatch(2.0, lambda step: [step]) for _ in range(2))
    expected = look(whole, losses)
    found = look(first, losses[:77])
    assert found + look(LossWatch(2.0, lambda step: [step], first.recent), losses[77:], 78) == expected
    assert any(expected)


def test_skipped_steps_are_found_and_nothing_at_the_start_or_when_it_is_off():
    watch = LossWatch(2.0, lambda step: [step])
    assert look(watch, [1.0, 99.0, 1.0]) == [None] * 3
    assert watch.look(4, float("inf"), 3) == {"event": "skipped", "step": 4, "loss": None, "in_row": 3, "ids": [4]}
    assert not any(look(LossWatch(0.0, lambda step: [step]), [1.0] * 50 + [1e6]))
