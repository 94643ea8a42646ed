"""The order of examples: a permutation, the same for ever, and independent of what draws augmentation."""

import tracemalloc

import numpy as np
import pytest
from conftest import Trainable

from trainer.data import order
from trainer.data.dataset import in_memory


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


def test_the_balanced_order_is_the_same_on_every_machine_and_version():
    ids, seeds = order.Balanced(3, np.array([0, 0, 0, 0, 0, 1, 1, 1, 2])).stream(250, 262)
    assert ids.tolist() == [5, 8, 4, 7, 8, 8, 8, 0, 3, 6, 1, 2]
    assert seeds[:3].tolist() == [4610586, 1523502451, 4198630570]


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


@pytest.fixture
def long_tail():
    """Labels of 600 examples of five classes, of which class 3 has none and class 4 a single one."""
    labels = np.repeat(np.array([0, 1, 2, 4], np.int32), [500, 80, 19, 1])
    return np.random.default_rng(0).permutation(labels)


def test_balanced_classes_come_equally_often(long_tail):
    ids, _ = order.Balanced(3, long_tail).stream(0, 4000)
    assert np.ptp(np.bincount(long_tail[ids])[[0, 1, 2, 4]]) <= 64 and 3 not in long_tail[ids]
    blocks = long_tail[ids[:3840]].reshape(-1, 256)  # of four classes, each 64 times
    assert all(np.bincount(block)[[0, 1, 2, 4]].tolist() == [64] * 4 for block in blocks)
    assert len({block.tobytes() for block in blocks}) == len(blocks)
    same = np.mean(long_tail[ids[::2]] == long_tail[ids[1::2]])  # neighbours, which mixup joins
    assert 0.2 < same < 0.3


def test_no_example_comes_again_before_all_of_its_class_have(long_tail):
    ids, seeds = order.Balanced(3, long_tail).stream(0, 4000)
    for label, size in ((0, 500), (1, 80), (2, 19), (4, 1)):
        mine = ids[long_tail[ids] == label]
        passes = mine[:len(mine) // size * size].reshape(-1, size)
        assert len(passes) >= 1 and all(len(set(one)) == size for one in passes.tolist())
        assert size == 1 or len({one.tobytes() for one in passes}) == len(passes)
    assert len(set(zip(ids.tolist(), seeds.tolist(), strict=True))) == 4000  # each time augmented otherwise


def test_a_balanced_stretch_is_the_same_wherever_it_begins(long_tail):
    ids, seeds = order.Balanced(7, long_tail).stream(0, 3000)
    fresh = [order.Balanced(7, long_tail).stream(begin, min(begin + 371, 3000)) for begin in range(0, 3000, 371)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in fresh]), ids)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in fresh]), seeds)
    assert order.Balanced(7, long_tail).stream(900, 900)[0].size == 0
    assert (order.Balanced(8, long_tail).stream(0, 3000)[0] != ids).mean() > 0.5


def test_balanced_orders_of_many_examples_take_little_memory():
    labels = np.minimum(np.random.default_rng(0).geometric(0.01, 300_000), 500).astype(np.int32)
    tracemalloc.start()
    stream = order.Balanced(0, labels)
    for first in (0, 2**16, 2**30):
        stream.stream(first, first + 2**14)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * len(labels)  # bytes


def test_training_takes_balanced_batches_from_anywhere(small):
    """Of the host, of the device and of a run that goes on: the same ids, those that the order says, with losses."""
    labels = np.where(np.arange(240) < 200, 0, small.train.labels)
    data = in_memory("t", small.classes, (small.train.images, labels), (small.test.images, small.test.labels))
    settings = {"sampling": "balanced", "ledger": True, "model": "small_models:smooth", "augment": ("flip",)}
    wanted = order.Balanced(0, data.train.labels).stream(0, 6 * 24)[0].reshape(6, 24)
    whole = Trainable(data, 2, **settings).train(6)
    np.testing.assert_array_equal(whole.ids, wanted)
    resident = Trainable(data, 1, input="device", first_step=2, **settings).train(4)
    np.testing.assert_array_equal(resident.ids, wanted[2:])
