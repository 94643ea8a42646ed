"""The drawn data set: balanced, repeatable, and too hard for a linear model."""

import numpy as np
import pytest

from trainer.data.sources import shapes


def test_images_follow_from_the_seed():
    one, again, other = (shapes.render_dataset(seed, 60, 20) for seed in (1, 1, 2))
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_a_larger_set_begins_with_the_smaller():
    small, large = shapes.render_images(0, 0, 30)[0], shapes.render_images(0, 0, 700)[0]
    np.testing.assert_array_equal(small, large[:30])


def test_train_and_test_share_no_image():
    data = shapes.render_dataset(0, 1000, 500)
    train = {image.tobytes() for image in data.train.images}
    assert len(train) == 1000 and not any(image.tobytes() in train for image in data.test.images)


def test_classes_are_balanced():
    assert np.bincount(shapes.render_dataset(0, 1000, 100).train.labels).tolist() == [100] * 10


@pytest.mark.slow
def test_a_linear_model_stays_under_60_percent():
    # Least squares on pixels: the best linear map in closed form, with some ridge against overfitting.
    data = shapes.render_dataset(0, 6000, 1000)

    def pixels(split):
        flat = split.images.reshape(split.size, -1) / 255 - 0.5
        return np.hstack([flat, np.ones((split.size, 1))]).astype(np.float64)

    x, y = pixels(data.train), np.eye(10)[data.train.labels]
    best = 0
    for ridge in (1, 100, 1000):
        weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
        best = max(best, np.mean(np.argmax(pixels(data.test) @ weights, 1) == data.test.labels))
    assert 0.1 < best < 0.6
