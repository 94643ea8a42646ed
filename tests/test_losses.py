"""Losses of examples against Keras's, of plain and of mixed images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import LOSSES
from trainer.data.augment.apply import Target
from trainer.train.losses import example_losses

CLASSES, COUNT = 5, 40


@pytest.fixture
def batch():
    """(`Target` of mixed images, some of them of one class, logits)."""
    rng = np.random.default_rng(0)
    labels, labels_b = (rng.integers(0, CLASSES, COUNT).astype(np.int32) for _ in range(2))
    lam = np.concatenate([rng.uniform(size=COUNT - 4), [0.81, 0.79, 0.21, 0.19]]).astype(np.float32)
    return (Target(tf.constant(labels), tf.constant(labels_b), tf.constant(lam)),
            tf.constant(rng.normal(size=(COUNT, CLASSES)) * 3, tf.float32))


def shares_of(target):
    """The share of each class in each image: [n, classes]."""
    lam = target.lam.numpy()[:, None]
    return np.eye(CLASSES)[target.labels] * lam + np.eye(CLASSES)[target.labels_b] * (1 - lam)


def wanted(loss, target, logits, smoothing):
    shares, settings = shares_of(target), {"from_logits": True, "reduction": None}
    if loss == "bce":  # Keras smooths towards a half, the paper towards 1 / classes
        targets = (shares > 0.2) * (1 - smoothing) + smoothing / CLASSES
        return keras.losses.BinaryCrossentropy(**settings)(targets.astype(np.float32), logits).numpy()
    kind = {"cross_entropy": keras.losses.CategoricalCrossentropy,
            "focal": lambda **more: keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0, **more)}[loss]
    return kind(label_smoothing=smoothing, **settings)(shares.astype(np.float32), logits).numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_keras_s(batch, loss, smoothing):
    mixed, logits = batch
    plain = Target(mixed.labels, mixed.labels, tf.ones(COUNT))
    for target in (mixed, plain):
        np.testing.assert_allclose(example_losses(target, logits, smoothing, loss=loss),
                                   wanted(loss, target, logits, smoothing), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_mixed_image_weighs_as_its_classes_do(batch, loss):
    target, logits = batch
    weights = np.array([0.5, 2, 1, 3, 1], np.float32)
    found = example_losses(target, logits, 0.1, weights, loss).numpy()
    if loss == "bce":
        by_hand = wanted(loss, target, logits, 0.1) * (shares_of(target) @ weights)
    else:
        parts = [Target(labels, labels, tf.ones(COUNT)) for labels in (target.labels, target.labels_b)]
        lam = target.lam.numpy()
        by_hand = sum(share * weights[part.labels.numpy()] * wanted(loss, part, logits, 0.1)
                      for share, part in zip((lam, 1 - lam), parts, strict=True))
    np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_surest_answers_have_a_finite_loss_and_gradient(loss):
    logits = tf.constant([[90.0, -90.0, -90.0], [-90.0, 90.0, -90.0], [0.0, 0.0, 0.0]])
    labels = tf.zeros(3, tf.int32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = example_losses(Target(labels, labels, tf.ones(3)), logits, loss=loss)
    gradient = tape.gradient(losses, logits).numpy()
    assert np.isfinite(losses).all() and np.isfinite(gradient).all()
    assert losses[0] < 0.01 < losses[1] and gradient[1, 0] < 0 < gradient[1, 1]
