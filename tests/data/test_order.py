"""The order of examples: a permutation, the same for ever, and independent of what draws augmentation."""

import numpy as np
import pytest

from trainer.data import order


@pytest.mark.parametrize("examples", [1, 2, 97, 1000])
def test_every_epoch_holds_every_example_once(examples):
    for epoch in range(3):
        assert sorted(order.permutation(5, epoch, examples)) == list(range(examples))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(order.permutation(seed, epoch, 1000)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_the_order_is_the_same_on_every_machine_and_version():
    # Frozen: a run that was started with this order must be able to go on with it for ever.
    assert order.permutation(0, 0, 10).tolist() == FROZEN_ORDER
    assert order.Shuffle(3, 10).stream(8, 12)[1].tolist() == FROZEN_SEEDS


def test_the_order_is_uniform():
    # Where id 0 lands, over many epochs: chi-squared with 9 degrees of freedom, 0.1 % at 27.9.
    places = np.array([np.flatnonzero(order.permutation(0, epoch, 10) == 0)[0] for epoch in range(5000)])
    counts = np.bincount(places, minlength=10)
    assert np.sum((counts - 500) ** 2 / 500) < 27.9


@pytest.mark.parametrize("replicas", [1, 2, 4, 8])
def test_batches_do_not_depend_on_the_replicas(replicas):
    stream = order.Shuffle(7, 100)
    ids, seeds = (np.concatenate(parts, 1) for parts in zip(*(
        order.batches(stream, 16, replicas, replica, 0, 20) for replica in range(replicas)), strict=True))
    expected = order.batches(stream, 16, 1, 0, 0, 20)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(seeds, expected[1])


def test_a_seek_equals_a_replay():
    whole = order.batches(order.Shuffle(1, 50), 8, 2, 1, 0, 40)
    for step in (1, 6, 7, 25, 39):
        for part, late in zip(whole, order.batches(order.Shuffle(1, 50), 8, 2, 1, step, 40), strict=True):
            np.testing.assert_array_equal(part[step:], late)


def test_batches_larger_than_the_data_span_epochs():
    ids, _ = order.batches(order.Shuffle(0, 3), 8, 1, 0, 0, 3)
    counts = np.bincount(ids.ravel())
    assert counts.tolist() == [8, 8, 8]


def test_an_example_has_another_seed_in_each_epoch():
    ids, seeds = order.Shuffle(0, 20).stream(0, 60)
    for example in range(20):
        assert len(set(seeds[ids == example])) == 3


FROZEN_ORDER = [0, 7, 8, 2, 5, 9, 4, 6, 3, 1]
FROZEN_SEEDS = [80827841, 756115931, 1162685227, 2314522515]
