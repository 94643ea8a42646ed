"""A user's own loss, augmentation and metrics: what they get, and what is said of those that return something else."""

import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import Trainable  # noqa: F401  `trainable` makes them

from trainer.config import Config
from trainer.data.augment.apply import augment_images
from trainer.errors import UsageError
from trainer.quality.predictions import Predictions
from trainer.reporting.board.own_metrics import OwnMetrics
from trainer.train.losses import cross_entropy, loss_function


@pytest.fixture
def mine(monkeypatch):
    """A module of the user's."""
    module = types.ModuleType("mine_of_test")
    monkeypatch.setitem(sys.modules, "mine_of_test", module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("replicas, more", [(2, {}), (1, {"augment": ("mixup",), "xla": True})])
def test_a_loss_that_is_cross_entropy_trains_as_cross_entropy_does(trainable, mine, replicas, more):
    mine.loss = lambda labels, logits: cross_entropy(labels, logits)
    settings = {"model": "small_models:smooth", "optimizer": "sgd", "learning_rate": 0.05, **more}
    ours, own = (trainable(replicas, loss=loss, **settings).train(10)
                 for loss in ("cross_entropy", "mine_of_test:loss"))
    np.testing.assert_array_equal(own.loss, ours.loss)


@pytest.mark.parametrize("returned, received", [
    (lambda labels, logits: tf.reduce_mean(logits), r"returned float32 \[\]; .* float32 \[4\]"),
    (lambda labels, logits: tf.zeros([4, 1]), r"returned float32 \[4, 1\]"),
    (lambda labels, logits: tf.zeros([4], tf.float64), r"returned float64 \[4\]"),
    (lambda labels, logits: None, "failed with ValueError"), (lambda labels, logits: 1 / 0, "ZeroDivisionError")])
def test_a_loss_that_is_none_is_named(mine, returned, received):
    mine.loss = returned
    with pytest.raises(UsageError, match=f"--loss=mine_of_test:loss failed.*{received}|{received}"):
        loss_function("mine_of_test:loss")(tf.zeros([4], tf.int32), tf.zeros([4, 3]), 0.0)


def test_an_augmentation_gets_images_and_seeds_in_its_place(mine):
    seen = []

    def invert(images, seeds):
        seen.append((images.numpy(), seeds.numpy()))
        return 255 - images

    mine.invert = invert
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), np.uint8))
    seeds = tf.constant([1, 2, 3, 4], tf.uint32)
    found = augment_images(images, seeds, ("flip", "mine_of_test:invert", "cutout"))
    flipped = augment_images(images, seeds, ("flip",))
    np.testing.assert_array_equal(seen[0][0], flipped)
    np.testing.assert_array_equal(seen[0][1], seeds)
    np.testing.assert_array_equal(found, augment_images(255 - flipped, seeds, ("cutout",)))


@pytest.mark.parametrize("returned", [lambda images, seeds: tf.cast(images, tf.float32),
                                      lambda images, seeds: images[:, :3]])
def test_an_augmentation_that_changes_type_or_shape_is_named(mine, returned):
    mine.other = returned
    with pytest.raises(UsageError, match="--augment=mine_of_test:other.*images of the same type and shape are needed"):
        augment_images(tf.zeros([2, 6, 6, 3], tf.uint8), tf.zeros([2], tf.uint32), ("mine_of_test:other",))


def test_what_takes_something_else_is_refused(mine):
    mine.loss = mine.metric = mine.augment = lambda a, b, c: None
    for flag, call in (("loss", lambda: loss_function("mine_of_test:loss")),
                       ("metrics", lambda: OwnMetrics(["mine_of_test:metric"], print)),
                       ("augment", lambda: augment_images(tf.zeros([1, 2, 2, 3], tf.uint8), tf.zeros([1], tf.uint32),
                                                          ("mine_of_test:augment",)))):
        with pytest.raises(UsageError, match=f"--{flag}=mine_of_test:.* can't be called as"):
            call()
    assert any("--label_smoothing" in line for line in Config(loss="m:f", label_smoothing=0.1).problems())


def test_a_metric_that_fails_is_told_once_and_is_no_figure(mine):
    said = Predictions("test", 7, ("a", "b"), np.arange(4), np.array([0, 1, 0, 1], np.int32),
                       np.array([0, 1, 1, 1], np.int32), np.ones(4, np.float32), np.zeros(4, np.int32), None)
    mine.right = lambda predictions: (predictions.labels == predictions.predicted).mean()
    mine.wrong = lambda predictions: predictions.probabilities.sum()
    mine.nan = lambda predictions: float("nan")
    warnings = []
    metrics = OwnMetrics([f"mine_of_test:{name}" for name in ("right", "wrong", "nan")], warnings.append)
    for _ in range(2):
        assert list(metrics.of(said).values()) == [0.75, None, None]
    assert len(warnings) == 1 and "--metrics=mine_of_test:wrong has no figure of step 7 (AttributeError" in warnings[0]
