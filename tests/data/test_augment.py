"""Augmentation: what each does to images, that it follows from the seed alone, and RandAugment against Pillow."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from image_files import photo
from PIL import Image, ImageEnhance, ImageOps

from trainer.config import AUGMENTATIONS, PAIR_AUGMENTATIONS
from trainer.data import lanes, order
from trainer.data.augment.apply import augment_images, mix
from trainer.data.augment.images import jitter, randaugment, trivial
from trainer.data.augment.images.crop import PADDING
from trainer.data.augment.operations import OPERATIONS, histograms
from trainer.data.augment.pairs import mixup
from trainer.data.augment.random_ints import random_bytes, random_ints
from trainer.errors import UsageError


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (64, 12, 10, 3), np.uint8)


@pytest.fixture
def seeds():
    return order.Shuffle(0, 64).stream(0, 64)[1]


def apply(images, seeds, names, xla=False):
    def function(images, seeds):
        return augment_images(images, seeds, names)

    if xla:
        function = tf.function(function, jit_compile=True, autograph=False)
    return function(tf.constant(images), tf.constant(seeds)).numpy()


def test_no_names_no_change(images, seeds):
    np.testing.assert_array_equal(apply(images, seeds, ()), images)


def test_flip_mirrors_about_half(images, seeds):
    out = apply(images, seeds, ("flip",))
    mirrored = [np.array_equal(a, b[:, ::-1]) and not np.array_equal(a, b) for a, b in zip(out, images, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(out, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 64 and 18 < sum(mirrored) < 46


def test_crop_cuts_out_of_the_padded_image(images, seeds):
    out = apply(images, seeds, ("crop",))
    padded = np.pad(images, [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)])
    places = set()
    for number in range(64):
        found = [(y, x) for y in range(9) for x in range(9)
                 if np.array_equal(padded[number, y:y + 12, x:x + 10], out[number])]
        assert found
        places.add(found[0])
    assert len(places) > 30


def test_translate_cuts_out_of_the_mirrored_border(images, seeds):
    out = apply(images, seeds, ("translate",))
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect")
    places = [[(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[n, y:y + 12, x:x + 10], out[n])]
              for n in range(64)]
    assert all(len(found) == 1 for found in places) and len({found[0] for found in places}) > 15
    with pytest.raises(UsageError, match="more than 2 pixels; received 2 × 9"):
        apply(images[:, :2, :9], seeds, ("translate",))


@pytest.mark.parametrize("ordered", [order.Shuffle(3, 64), order.Balanced(3, np.repeat([0, 1], 32)),
                                     lanes.Lanes(3, 64, 8, 4)])
def test_an_alternating_flip_shows_both_forms_in_any_two_epochs(images, ordered):
    ordered.seeds_of = order.alternating_seeds
    ids, seeds = ordered.stream(0, 512)
    out = apply(images[ids], seeds, ("alternating_flip",))
    flipped = (out == images[ids][:, :, ::-1]).all((1, 2, 3))
    np.testing.assert_array_equal(out[~flipped], images[ids][~flipped])
    first = []
    for example in range(64):
        seen = flipped[ids == example]
        assert len(seen) > 5 and (seen[1:] != seen[:-1]).all()
        first.append(seen[0])
    assert 18 < sum(first) < 46 and len(set(seeds.tolist())) == 512


@pytest.mark.parametrize("names", [("flip",), ("crop",), ("flip", "crop"), ("crop", "flip"), ("cutout",),
                                   ("alternating_flip", "translate")])
def test_the_same_under_xla(images, seeds, names):
    np.testing.assert_array_equal(apply(images, seeds, names, xla=True), apply(images, seeds, names))


@pytest.mark.slow
def test_nearly_the_same_under_xla(images, seeds):
    # Sums of floats may be rounded otherwise, and an image's pixels then be one apart.
    large = np.random.default_rng(1).integers(0, 256, (16, 80, 70, 3), np.uint8)
    for batch, names in ((images, ("trivial",)), (images, ("erasing", "jitter")), (large, ("crop",))):
        plain, compiled = (apply(batch, seeds[:len(batch)], names, xla).astype(int) for xla in (False, True))
        assert (plain != compiled).mean() < 1e-3 and np.percentile(np.abs(plain - compiled), 99.9) <= 1


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name not in PAIR_AUGMENTATIONS])
def test_an_example_looks_the_same_wherever_it_stands_in_a_batch(name):
    # Of parts of any size: sines and powers that a processor computes eight at a time are others than those of a rest.
    count = 500
    images, seeds = np.tile(photo(16, 12)[None], (count, 1, 1, 1)), order.Shuffle(0, count).stream(0, count)[1]
    whole, ends = apply(images, seeds, (name,)), [0, 1, 4, 11, 24, 55, 118, 245, count]
    parts = [apply(images[begin:end], seeds[begin:end], (name,)) for begin, end in itertools.pairwise(ends)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_large_images_are_cropped_and_brought_back():
    rows, columns = np.mgrid[0:100, 0:120].astype(np.uint8)
    images = np.tile(np.stack([rows, columns, rows], -1), (64, 1, 1, 1))
    out = apply(images, order.Shuffle(0, 64).stream(0, 64)[1], ("crop",)).astype(int)
    assert (np.diff(out[..., 0], axis=1) >= 0).all() and (np.diff(out[..., 1], axis=2) >= 0).all()
    tall, wide = out[:, -1, 0, 0] - out[:, 0, 0, 0], out[:, 0, -1, 1] - out[:, 0, 0, 1]
    share = tall * wide / (100 * 120)
    assert 0.05 < share.min() < 0.3 and 0.7 < share.max() <= 1 and len({tuple(row) for row in out[:, 0, 0]}) > 40


def test_cutout_greys_a_quarter_or_less(images, seeds):
    out = apply(np.full_like(images, 7), seeds, ("cutout",))
    holes = (out != 7).all(-1)
    assert set(np.unique(out)) == {7, 128} and holes.mean((1, 2)).max() <= 0.25 and holes.any((1, 2)).all()
    for hole in holes:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].all()
    assert len({hole.tobytes() for hole in holes}) > 30


PILLOW = {
    "brightness": lambda image, by: ImageEnhance.Brightness(image).enhance(by),
    "contrast": lambda image, by: ImageEnhance.Contrast(image).enhance(by),
    "color": lambda image, by: ImageEnhance.Color(image).enhance(by),
    "sharpness": lambda image, by: ImageEnhance.Sharpness(image).enhance(by),
    "posterize": lambda image, _: ImageOps.posterize(image, 7),
    "solarize": lambda image, _: ImageOps.solarize(image, 256 * 0.7),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "identity": lambda image, _: image}


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("name", PILLOW)
def test_randaugment_does_what_pillow_does(name, sign):
    images = np.stack([np.clip(photo(20, 24, seed) * 0.6 + 30, 0, 255).astype(np.uint8) for seed in range(4)])
    number = OPERATIONS.index(name)
    out = randaugment.apply(tf.constant(images), tf.fill([4], number), tf.fill([4], sign)).numpy()
    by = 1 + 0.9 * 0.3 * (-1 if sign else 1)
    wanted = np.stack([np.asarray(PILLOW[name](Image.fromarray(image), by)) for image in images])
    assert np.abs(out.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("name, transform", [
    ("translate_x", lambda m: (1, 0, round(150 / 331 * 40 * m), 0, 1, 0)),
    ("translate_y", lambda m: (1, 0, 0, 0, 1, round(150 / 331 * 30 * m))),
    ("shear_x", lambda m: (1, 0.3 * m, -0.3 * m * 14.5, 0, 1, 0)),
    ("shear_y", lambda m: (1, 0, 0, 0.3 * m, 1, -0.3 * m * 19.5))])
def test_randaugment_moves_as_pillow_does(name, transform):
    image = photo(30, 40)
    number = OPERATIONS.index(name)
    for sign in (0, 1):
        out = randaugment.apply(tf.constant(image[None]), tf.constant([number]), tf.constant([sign]))[0].numpy()
        wanted = np.asarray(Image.fromarray(image).transform((40, 30), Image.Transform.AFFINE,
                                                             transform(-0.3 if sign else 0.3), fillcolor=(128,) * 3))
        # Where a pixel lies between two old ones, either may be taken.
        assert (out == wanted).all(-1).mean() > 0.9


def trivially_changed(image, name, level, sign):
    out = trivial.apply(tf.constant(image[None]), tf.constant([OPERATIONS.index(name)]), tf.constant([level]),
                        tf.constant([sign]))
    return out[0].numpy()


# Table of the wide space: a change's parameter at a strength m from 0 to 1 with its sign, as Pillow takes it.
WIDE = {
    **{name: lambda m, name=name: lambda image: PILLOW[name](image, 1 + 0.99 * m)
       for name in ("brightness", "contrast", "color", "sharpness")},
    **{name: lambda m, name=name: lambda image: PILLOW[name](image, None)
       for name in ("autocontrast", "equalize", "identity")},
    "posterize": lambda m: lambda image: ImageOps.posterize(image, 8 - round(6 * abs(m))),
    "solarize": lambda m: lambda image: ImageOps.solarize(image, 256 * (1 - abs(m)))}


@pytest.mark.parametrize("name", WIDE)
def test_trivial_does_what_pillow_does_with_the_papers_ranges(name):
    image = np.clip(photo(20, 24) * 0.6 + 30, 0, 255).astype(np.uint8)
    for level in (0, 7, 12, 23, 30):
        for sign in (0, 1):
            wanted = np.asarray(WIDE[name]((-1 if sign else 1) * level / 30)(Image.fromarray(image)))
            assert np.abs(trivially_changed(image, name, level, sign).astype(int) - wanted).max() <= 1, (level, sign)


def test_trivial_moves_by_the_papers_ranges():
    image = photo(80, 90)
    for level, sign in ((30, 0), (17, 1), (0, 1)):
        m = (-1 if sign else 1) * level / 30
        moves = {"translate_x": (1, 0, int(32 * m), 0, 1, 0), "translate_y": (1, 0, 0, 0, 1, int(32 * m)),
                 "shear_x": (1, 0.99 * m, -0.99 * m * 40, 0, 1, 0), "shear_y": (1, 0, 0, 0.99 * m, 1, -0.99 * m * 45)}
        for name, matrix in moves.items():
            wanted = np.asarray(Image.fromarray(image).transform((90, 80), Image.Transform.AFFINE, matrix,
                                                                 fillcolor=(128,) * 3))
            assert (trivially_changed(image, name, level, sign) == wanted).all(-1).mean() > 0.9, (name, level, sign)
        turned = np.asarray(Image.fromarray(image).rotate(-135 * m, fillcolor=(128,) * 3))
        assert (trivially_changed(image, "rotate", level, sign) == turned).all(-1).mean() > 0.9


def test_trivial_draws_each_change_and_each_strength_alike():
    seeds = tf.constant(order.Shuffle(0, 20_000).stream(0, 20_000)[1])
    for index, below, limit in ((24, 14, 34.5), (25, 31, 59.7)):  # chi-squared: 0.1 % of 13, of 30 degrees of freedom
        counts = np.bincount(random_ints(seeds, index, below).numpy(), minlength=below)
        assert len(counts) == below and np.sum((counts - 20_000 / below) ** 2 / (20_000 / below)) < limit
    image = np.tile(photo(16, 16)[None], (64, 1, 1, 1))
    seen = {one.tobytes() for one in apply(image, seeds[:64].numpy(), ("trivial",))}
    assert len(seen) > 35  # identity, autocontrast, equalize and the least strengths give the same more than once


def test_jitter_does_what_pillow_does_in_the_drawn_order():
    images = np.stack([photo(20, 24, seed) for seed in range(6)])
    factors = np.random.default_rng(0).uniform(0.6, 1.4, (6, 3)).astype(np.float32)
    out = jitter.apply(tf.constant(images), tf.range(6), tf.constant(factors)).numpy().astype(int)
    for row, kinds in enumerate(jitter.ORDERS):
        wanted = Image.fromarray(images[row])
        for kind in kinds:
            name = ("brightness", "contrast", "color")[kind]
            wanted = PILLOW[name](wanted, float(factors[row, kind]))
        assert np.abs(out[row] - np.asarray(wanted)).max() <= 2 and (out[row] == np.asarray(wanted)).mean() > 0.9
    assert len({tuple(row) for row in jitter.ORDERS}) == 6
    same = jitter.apply(tf.constant(images), tf.range(6), tf.ones([6, 3]))
    np.testing.assert_array_equal(same, images)


def test_jitter_draws_its_factors_from_their_range(seeds):
    flat = np.full((64, 4, 4, 3), 100, np.uint8)  # contrast and saturation leave it as it is
    levels = apply(flat, seeds, ("jitter",))[:, 0, 0, 0]
    assert 60 <= levels.min() < 70 and 130 < levels.max() <= 140 and 92 < levels.mean() < 108


def test_erasing_fills_boxes_of_the_papers_sizes_with_noise():
    count, height, width = 4_000, 24, 32
    seeds = order.Shuffle(0, count).stream(0, count)[1]
    out = apply(np.full((count, height, width, 1), 7, np.uint8), seeds, ("erasing",))[..., 0]
    erased = np.flatnonzero((out != 7).any((1, 2)))
    assert 0.22 < len(erased) / count < 0.28
    shares, ratios, corners = [], [], set()
    for one in out[erased] != 7:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        tall, wide = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert one[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].mean() > 0.6  # noise may draw a 7
        shares.append(tall * wide / (height * width))
        ratios.append(wide / tall)
        corners.add((rows[0], columns[0]))
    shares, ratios = np.array(shares), np.array(ratios)
    assert shares.min() < 0.04 and 0.3 < shares.max() < 0.36 and 0.15 < shares.mean() < 0.19
    assert 0.2 < ratios.min() < 0.4 and 2.6 < ratios.max() < 5 and -0.1 < np.log(ratios).mean() < 0.15
    assert len(corners) > 200
    values = out[erased][out[erased] != 7]
    counts = np.bincount(values, minlength=256)
    counts = np.delete(counts, 7)
    assert np.sum((counts - counts.mean()) ** 2 / counts.mean()) < 330  # chi-squared of 254 degrees of freedom: 0.1 %


def test_erasing_draws_every_channel_by_itself(images, seeds):
    out = apply(images, seeds, ("erasing",)).astype(int)
    noise = out[(out != images).all(-1)]
    assert len(noise) > 200 and np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.15


def test_bytes_of_an_example_are_independent():
    drawn = random_bytes(tf.constant([1, 2], tf.uint32), 21, 20_000).numpy().astype(int)
    other = random_bytes(tf.constant([1, 2], tf.uint32), 22, 20_000).numpy().astype(int)
    pairs = [(drawn[0], drawn[1]), (drawn[0], other[0]), (drawn[0, 1:], drawn[0, :-1]), (drawn[0, 1:], other[0, :-1])]
    assert max(abs(np.corrcoef(pair)[0, 1]) for pair in pairs) < 0.03


@pytest.mark.parametrize("name", ["jitter", "randaugment", "trivial"])
def test_images_of_two_channels_have_no_colours(seeds, name):
    with pytest.raises(UsageError, match=f"--augment={name} changes images of 1 or 3 channels; received 2"):
        apply(np.zeros((64, 4, 4, 2), np.uint8), seeds, (name,))


def test_randaugment_rotates():
    image = photo(31, 31)
    number = OPERATIONS.index("rotate")
    out = randaugment.apply(tf.constant(image[None]), tf.constant([number]), tf.constant([0]))[0].numpy()
    wanted = np.asarray(Image.fromarray(image).rotate(-9, fillcolor=(128,) * 3))
    assert np.abs(out.astype(int) - wanted).mean() < 3 and (out[15, 15] == image[15, 15]).all()


def mixed(images, labels, seeds, *names):
    images, target = mix(tf.constant(images, tf.float32), tf.constant(labels), tf.constant(seeds), names)
    return images.numpy(), *(part.numpy() for part in target)


def test_mixup_is_the_weighed_mean_of_partners(images, seeds):
    labels = np.arange(64, dtype=np.int32)
    out, own, other, share = mixed(images, labels, seeds, "mixup")
    np.testing.assert_array_equal(other, labels ^ 1)
    np.testing.assert_array_equal(own, labels)
    weights = share[:, None, None, None]
    np.testing.assert_allclose(out, weights * images + (1 - weights) * images[labels ^ 1], rtol=1e-5, atol=1e-3)
    assert share.min() >= 0.5 and len(set(share)) > 30


def test_beta_quantiles_are_those_of_the_distribution():
    # Of Beta(0.2, 0.2): mean 1/2, variance 1 / (4 · 1.4); of Beta(1, 1): uniform.
    values = mixup.beta_quantiles(0.2, 4096).astype(float)
    assert values.mean() == pytest.approx(0.5, abs=1e-6) and values.var() == pytest.approx(1 / 5.6, rel=2e-3)
    assert (np.diff(values) >= 0).all()
    np.testing.assert_allclose(mixup.beta_quantiles(1.0, 100), (np.arange(100) + 0.5) / 100, atol=1e-4)


def test_cutmix_pastes_a_box_and_counts_its_pixels(images, seeds):
    labels = np.arange(64, dtype=np.int32)
    out, _, other, share = mixed(images, labels, seeds, "cutmix")
    beside = images[other]
    pasted = (out == beside).all(-1) & (out != images).any(-1)
    np.testing.assert_allclose(1 - share, pasted.mean((1, 2)), atol=0.02)
    assert ((out == images) | (out == beside)).all() and share.min() < 0.3 and share.max() > 0.9


def test_of_both_each_example_draws_one(images, seeds):
    labels = np.arange(64, dtype=np.int32)
    both, first, second = (mixed(images, labels, seeds, *names)[0]
                           for names in (("mixup", "cutmix"), ("mixup",), ("cutmix",)))
    took = [(both == one).all((1, 2, 3)) for one in (first, second)]
    assert (took[0] | took[1]).all() and 15 < took[0].sum() < 50


def test_draws_are_uniform_and_independent():
    seeds = tf.constant(order.Shuffle(0, 20_000).stream(0, 20_000)[1])
    draws = [random_ints(seeds, number, 9).numpy() for number in (1, 2)]
    for values in draws:  # chi-squared with 8 degrees of freedom: 0.1 % at 26.1
        counts = np.bincount(values, minlength=9)
        assert np.sum((counts - 20_000 / 9) ** 2 / (20_000 / 9)) < 26.1
    assert abs(np.corrcoef(draws)[0, 1]) < 0.03


@pytest.mark.parametrize("xla", [False, True])
def test_histograms_are_the_same_by_scatter_and_by_comparison(xla):
    values = np.random.default_rng(0).integers(0, 256, (5, 16, 12, 3)).astype(np.int32)
    function = tf.function(histograms, jit_compile=xla)
    found = [function(tf.constant(values), by_comparison).numpy() for by_comparison in (False, True)]
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (5, 3, 256)
    np.testing.assert_array_equal(found[0][2, 1], np.bincount(values[2, :, :, 1].ravel(), minlength=256))


@pytest.mark.parametrize("name", ["flip", "crop", "cutout", "erasing", "jitter", "randaugment", "trivial"])
def test_grey_images_are_changed_as_equal_channels_are(images, seeds, name):
    grey = images[..., :1]
    np.testing.assert_array_equal(apply(grey, seeds, (name,)), apply(np.repeat(grey, 3, -1), seeds, (name,))[..., :1])
