"""Epochs and fractions as steps: where a run evaluates, logs, saves and ends."""

from fractions import Fraction

import pytest

from trainer.config import Config
from trainer.errors import DataError, UsageError
from trainer.plan import make_plan, rate_sentence


def plan(examples=50_000, replicas=1, **settings):
    return make_plan(Config(**settings), examples, replicas)


def test_ten_epochs_of_cifar10():
    made = plan()
    assert made.total_steps == 3907  # ten times 390.625, rounded up: no example is left out
    assert made.epoch(3907) == pytest.approx(10, abs=0.003)


@pytest.mark.parametrize("examples, batch, epochs, steps", [
    (100, 10, 1, 10), (101, 10, 1, 11), (99, 10, 1, 10), (100, 10, 0.5, 5), (100, 10, 0.1, 1), (100, 10, 0.3, 3),
    (10, 64, 1, 1), (10, 64, 10, 2)])
def test_total_steps(examples, batch, epochs, steps):
    assert plan(examples, batch_size=batch, epochs=epochs).total_steps == steps


def test_the_sooner_of_epochs_and_max_steps_ends_the_run():
    assert plan(100, batch_size=10, epochs=2, max_steps=7).total_steps == 7
    assert plan(100, batch_size=10, epochs=2, max_steps=70).total_steps == 20


@pytest.mark.parametrize("examples, batch, every", [
    (100, 10, 1), (101, 10, 1), (97, 13, 0.5), (10, 64, 1), (50, 7, 2.5)])
def test_evaluations_are_where_epochs_end(examples, batch, every):
    made = plan(examples, batch_size=batch, epochs=6, eval_every_epochs=every)
    expected, multiple = set(), Fraction(str(every))
    while multiple < 7:
        expected.add(-(-(multiple * examples) // batch))
        multiple += Fraction(str(every))
    expected = {step for step in expected if step <= made.total_steps} | {made.total_steps}
    assert {step for step in range(made.total_steps + 1) if made.evaluates_at(step)} == expected


def test_a_call_never_runs_past_a_stop():
    made = plan(101, batch_size=10, epochs=4, checkpoint_every_steps=7)
    step, stops = 0, []
    while step < made.total_steps:
        step = made.next_stop(step)
        stops.append(step)
    assert stops == sorted({7, 14, 21, 28, 35, 11, 31, 41} | {made._next_evaluation(11)})
    assert all(made.evaluates_at(s) or s % 7 == 0 for s in stops)


def test_sizes_of_training_begin_at_steps():
    made = plan(105, batch_size=10, epochs=4, train_sizes=("16", "24@1.5", "32@3"), eval_every_epochs=9)
    assert made.train_sizes == ((0, 16), (16, 24), (32, 32))
    assert [made.train_size(step) for step in (0, 15, 16, 31, 32, 41)] == [16, 16, 24, 24, 32, 32]
    assert (made.next_stop(0), made.next_stop(16), made.next_stop(32)) == (16, 32, 42)
    assert plan().train_size(0) is None


def test_a_batch_that_does_not_divide_names_the_nearest_that_do():
    with pytest.raises(UsageError, match="received 127; the nearest that are: 124 or 128"):
        plan(batch_size=127, replicas=4)
    with pytest.raises(UsageError, match="received 3; the nearest that are: 4\n"):
        plan(batch_size=3, replicas=4)


def test_no_examples():
    with pytest.raises(DataError):
        plan(0)


def test_the_sentence():
    assert plan(replicas=4).sentence() == ("global batch 128 = 4 replicas × 32; 50,000 examples make 390.625 steps an "
                                           "epoch; 10 epochs are 3,907 steps")


@pytest.mark.parametrize("images, batch_size", [(3, 2), (20, 2), (50, 4), (1279, 64), (1280, 128), (1_000_000, 128)])
def test_the_default_batch_makes_ten_steps_an_epoch(images, batch_size):
    made = make_plan(Config(), images, 1)
    assert made.batch_size == batch_size
    assert images < 20 or images / made.batch_size >= 10
    told = made.warnings(Config())
    assert told == ([] if batch_size == 128 else [
        f"--batch_size isn't given: it is {batch_size} rather than 128, so that {images:,} images make 10 steps an "
        "epoch"])


def test_a_batch_that_is_asked_for_is_taken_and_told_if_the_data_is_smaller():
    config = Config(batch_size=128)
    made = make_plan(config, 20, 1)
    assert made.batch_size == 128
    assert len(made.warnings(config)) == 1 and "more than the 20 images to train on" in made.warnings(config)[0]


@pytest.mark.parametrize("how, accumulate, rate, said", [
    ("none", 1, 0.1, None), ("linear", 1, 0.2, "learning rate 0.1 × 512 / 256 = 0.2"),
    ("linear", 4, 0.8, "learning rate 0.1 × 2,048 / 256 = 0.8"),
    ("sqrt", 2, 0.2, "learning rate 0.1 × √(1,024 / 256) = 0.2")])
def test_the_learning_rate_is_scaled_by_the_examples_of_a_step(how, accumulate, rate, said):
    config = Config(learning_rate=0.1, batch_size=512, scale_learning_rate=how, accumulate_steps=accumulate)
    made = make_plan(config, 50_000, 4)
    assert made.learning_rate == pytest.approx(rate) and rate_sentence(config, made) == said
