"""Which part of an image is seen: random and central boxes, EXIF orientations, halvings."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.images import crops

RNG = np.random.default_rng(0)
HEIGHTS, WIDTHS = RNG.integers(1, 900, 3000), RNG.integers(1, 900, 3000)
SEEDS = RNG.integers(0, 2**32, 3000, dtype=np.uint32)


def test_random_boxes_lie_in_the_image_and_have_the_sides_and_areas_that_are_allowed():
    boxes = crops.random_boxes(HEIGHTS, WIDTHS, SEEDS)
    top, left, tall, wide = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (tall >= 1).all() and (wide >= 1).all()
    assert (top + tall <= HEIGHTS).all() and (left + wide <= WIDTHS).all()
    usual = (np.minimum(HEIGHTS, WIDTHS) > 100) & (HEIGHTS < 2 * WIDTHS) & (WIDTHS < 2 * HEIGHTS)
    area, ratio = tall * wide / (HEIGHTS * WIDTHS), wide / tall
    assert area[usual].min() > 0.07 and area[usual].max() <= 1 and 0.3 < area[usual].mean() < 0.6
    assert ratio[usual].min() > 0.72 and ratio[usual].max() < 1.4


def test_a_box_follows_from_its_seed_alone():
    boxes = crops.random_boxes(HEIGHTS, WIDTHS, SEEDS)
    some = RNG.permutation(3000)[:100]
    np.testing.assert_array_equal(crops.random_boxes(HEIGHTS[some], WIDTHS[some], SEEDS[some]), boxes[some])
    usual = (np.minimum(HEIGHTS, WIDTHS) > 100) & (HEIGHTS < 2 * WIDTHS) & (WIDTHS < 2 * HEIGHTS)
    assert (crops.random_boxes(HEIGHTS, WIDTHS, SEEDS + 1) != boxes).any(1)[usual].all()


@pytest.mark.parametrize("height, width, size, box", [
    (224, 224, 224, [0, 0, 224, 224]), (256, 256, 224, [16, 16, 224, 224]), (300, 400, 224, [19, 69, 262, 262]),
    (32, 32, 32, [0, 0, 32, 32]), (40, 60, 32, [0, 10, 40, 40]), (1, 1, 224, [0, 0, 1, 1])])
def test_the_box_in_the_middle(height, width, size, box):
    view = crops.View(size, size, 3, "crop")
    assert crops.central_boxes(np.array([height]), np.array([width]), view).tolist() == [box]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_found_in_stored_pixels(orientation):
    from trainer.data.images.tf_decoder import upright

    stored = tf.reshape(tf.range(12 * 20), [12, 20, 1])
    shown = upright(stored, orientation).numpy()
    height, width = shown.shape[:2]
    box = np.array([[2, 3, 4, 6]], np.int32)
    (top, left, tall, wide), = crops.stored_boxes(box, np.array([height]), np.array([width]), np.array([orientation]))
    cut = upright(stored[top:top + tall, left:left + wide], orientation).numpy()
    np.testing.assert_array_equal(cut, shown[2:6, 3:9])


@pytest.mark.parametrize("tall, wide, halvings", [(100, 100, 0), (447, 900, 0), (448, 900, 1), (1000, 896, 2),
                                                  (5000, 5000, 3), (10, 10, 0)])
def test_a_jpeg_is_halved_while_it_stays_large_enough(tall, wide, halvings):
    assert crops.reductions(np.array([[0, 0, tall, wide]]), np.array([[224, 224]])).tolist() == [halvings]
