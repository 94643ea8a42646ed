"""Evaluation: every example once, whatever the batch and the replicas."""

import numpy as np
import pytest
import tensorflow as tf
from cases import long

from trainer.train.evaluation import Evaluator


@pytest.mark.slow
@pytest.mark.parametrize("replicas, rows", [
    (1, 50), (1, 7), (2, 8), (4, 3), long(4, 13)])
def test_every_example_counts_once(trainable, small, replicas, rows):
    made = trainable(replicas)
    made.train(20)
    evaluator = Evaluator(made.state.model, small.test, made.runtime, per_replica_batch_size=rows)
    logits = made.state.model(small.test.images.astype(np.float32), training=False).numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for _ in range(2):
        result = evaluator.run()
        assert result.examples == 50
        assert result.accuracy == np.mean(logits.argmax(1) == small.test.labels)
        assert result.loss == pytest.approx(-log_p[np.arange(50), small.test.labels].mean(), rel=1e-5)


@pytest.mark.parametrize("xla", [False, True])
def test_with_flips_probabilities_are_the_mean_of_both(trainable, small, xla):
    made = trainable(2, model="small_models:smooth", learning_rate=0.01, xla=xla)
    made.train(20)
    images = small.test.images.astype(np.float32)
    first, second = (tf.nn.softmax(made.state.model(each, training=False)).numpy()
                     for each in (images, images[:, :, ::-1]))
    mean = (first + second) / 2
    result = Evaluator(made.state.model, small.test, made.runtime, per_replica_batch_size=9, flips=True).run()
    assert result.examples == 50 and result.accuracy == np.mean(mean.argmax(1) == small.test.labels)
    assert result.loss == pytest.approx(-np.log(mean[np.arange(50), small.test.labels]).mean(), rel=1e-5)
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("xla", [False, True])
def test_with_flips_and_moves_logits_are_the_mean_of_six_forms(trainable, small, xla):
    made = trainable(2, model="small_models:smooth", learning_rate=0.01, xla=xla)
    made.train(20)
    images = small.test.images.astype(np.float32)
    height, width = images.shape[1:3]
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    forms = [(images, 0.25), (padded[:, :height, :width], 0.125), (padded[:, 2:, 2:], 0.125)]
    logits = sum(weight * made.state.model(form, training=False).numpy()
                 for image, weight in forms for form in (image, image[:, :, ::-1]))
    result = Evaluator(made.state.model, small.test, made.runtime, per_replica_batch_size=9, translates=True).run()
    assert result.examples == 50 and result.accuracy == np.mean(logits.argmax(1) == small.test.labels)
    expected = -tf.nn.log_softmax(logits).numpy()[np.arange(50), small.test.labels].mean()
    assert result.loss == pytest.approx(expected, rel=1e-5)


def test_it_sees_later_weights_without_compiling_again(trainable, small):
    made = trainable(2)
    evaluator = Evaluator(made.state.model, small.test, made.runtime, per_replica_batch_size=10)
    before = evaluator.run()
    made.train(30)
    assert evaluator.run().loss != before.loss
    assert evaluator._function.experimental_get_tracing_count() == 1


@pytest.mark.slow
def test_what_it_said_of_each_example_is_the_same_on_any_number_of_replicas(trainable, small):
    made = trainable(4, model="small_models:smooth", optimizer="sgd")
    made.train(20)
    logits = made.state.model(small.test.images.astype(np.float32), training=False).numpy()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    for replicas, rows in ((4, 3), (1, 7), (2, 25)):
        runtime = made.runtime if replicas == 4 else trainable(replicas).runtime
        with runtime.strategy.scope():
            evaluator = Evaluator(made.state.model, small.test, runtime, per_replica_batch_size=rows)
        evaluation = evaluator.run()
        found = evaluator.predictions(split="test", step=20, classes=small.classes)
        narrow = evaluator.predictions(split="test", step=20, classes=small.classes, probabilities=False)
        assert narrow.probabilities is None
        assert all(getattr(narrow, name).tolist() == getattr(found, name).tolist()
                   for name in ("ids", "labels", "predicted", "confidence", "rank"))
        assert found.ids.tolist() == list(range(50)) and found.labels.tolist() == small.test.labels.tolist()
        assert found.accuracy == evaluation.accuracy and found.predicted.tolist() == logits.argmax(1).tolist()
        np.testing.assert_allclose(found.probabilities, powers / powers.sum(1, keepdims=True), rtol=1e-5)
        assert found.rank.tolist() == (logits > logits[np.arange(50), small.test.labels][:, None]).sum(1).tolist()
