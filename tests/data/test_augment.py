import numpy as np
import pytest
import tensorflow as tf

from trainer.data import order
from trainer.data.augment import PADDING, augment, draw


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (64, 12, 10, 3), np.uint8)


@pytest.fixture
def seeds():
    return order.Shuffle(0, 64).stream(0, 64)[1]


def apply(images, seeds, names, xla=False):
    function = tf.function(lambda i, s: augment(i, s, names), jit_compile=xla)
    return function(tf.constant(images), tf.constant(seeds)).numpy()


def test_no_names_no_change(images, seeds):
    np.testing.assert_array_equal(apply(images, seeds, ()), images)


def test_flip_mirrors_about_half(images, seeds):
    out = apply(images, seeds, ("flip",))
    mirrored = [np.array_equal(a, b[:, ::-1]) and not np.array_equal(a, b) for a, b in zip(out, images, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(out, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 64 and 18 < sum(mirrored) < 46


def test_crop_cuts_out_of_the_padded_picture(images, seeds):
    out = apply(images, seeds, ("crop",))
    padded = np.pad(images, [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)])
    places = set()
    for number in range(64):
        found = [(y, x) for y in range(9) for x in range(9)
                 if np.array_equal(padded[number, y:y + 12, x:x + 10], out[number])]
        assert found
        places.add(found[0])
    assert len(places) > 30


@pytest.mark.parametrize("names", [("flip",), ("crop",), ("flip", "crop"), ("crop", "flip")])
def test_the_same_under_xla(images, seeds, names):
    np.testing.assert_array_equal(apply(images, seeds, names, xla=True), apply(images, seeds, names))


def test_an_example_looks_the_same_wherever_it_stands_in_a_batch(images, seeds):
    whole = apply(images, seeds, ("flip", "crop"))
    parts = [apply(images[begin:begin + 16], seeds[begin:begin + 16], ("flip", "crop")) for begin in range(0, 64, 16)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_draws_are_uniform_and_independent():
    seeds = tf.constant(order.Shuffle(0, 20_000).stream(0, 20_000)[1])
    draws = [draw(seeds, number, 9).numpy() for number in (1, 2)]
    for values in draws:  # chi-squared with 8 degrees of freedom: 0.1 % at 26.1
        counts = np.bincount(values, minlength=9)
        assert np.sum((counts - 20_000 / 9) ** 2 / (20_000 / 9)) < 26.1
    assert abs(np.corrcoef(draws)[0, 1]) < 0.03
