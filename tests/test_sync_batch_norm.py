"""--sync_batch_norm: any number of replicas has the moments, losses and gradients of one that takes the whole batch."""

import gpu_like
import numpy as np
import pytest
import tensorflow as tf
from conftest import Trainable, make_runtime
from keras import layers

from trainer.device_kind import CPU
from trainer.models.normalization import BatchNormalizationOverReplicas

SETTINGS = {"model": "small_models:compact", "optimizer": "sgd", "learning_rate": 0.05, "sync_batch_norm": True}
STEPS = 4


@pytest.fixture(scope="module")
def alone(small):
    """(a training loop of one replica, its first losses)."""
    made = Trainable(small, 1, **SETTINGS)
    assert not made.state.crosses_replicas
    return made, made.train(STEPS).loss


@pytest.mark.slow
@pytest.mark.parametrize("replicas, xla, kind, passes", [(3, False, CPU, 1), (2, True, gpu_like.KIND, 1),
                                                         (2, False, CPU, 2)])
def test_replicas_train_as_one_does(trainable, alone, replicas, xla, kind, passes):
    one, losses = alone
    if passes > 1:  # moments are of a pass
        one = trainable(1, **SETTINGS, microbatch=str(24 // passes))
        losses = one.train(STEPS).loss
    with gpu_like.no_merge_call():
        made = trainable(replicas, xla=xla, kind=kind, **SETTINGS, microbatch=str(24 // passes))
        np.testing.assert_allclose(made.train(STEPS).loss, losses, rtol=5e-6)
    for mine, other in zip(made.weights(), one.weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-6)


@pytest.mark.parametrize("mean", [0, 1000])
def test_moments_and_their_gradient_are_those_of_all_rows(mean):
    """Held against Keras on the whole batch; a large mean costs no digits."""
    x = np.random.default_rng(0).normal(mean, 1, (12, 5)).astype(np.float32)
    factors = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)

    def gradient(layer, rows, weights):
        rows = tf.convert_to_tensor(rows)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            result = layer(rows, training=True)
            loss = tf.reduce_sum(weights * tf.square(result))
        return result, tape.gradient(loss, rows)

    wanted = gradient(layers.BatchNormalization(), x, factors)
    runtime = make_runtime(4)
    with runtime.strategy.scope():
        layer = layers.BatchNormalization()
        layer.build((None, 5))
        layer.__class__ = BatchNormalizationOverReplicas

    @tf.function(autograph=False)
    def on_replicas():
        def own():
            number = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
            rows = slice(3 * number, 3 * number + 3)
            return gradient(layer, x[rows], factors[rows])

        return runtime.strategy.run(own)

    for found, value in zip(on_replicas(), wanted, strict=True):
        parts = runtime.strategy.experimental_local_results(found)
        np.testing.assert_allclose(np.concatenate(parts), value, atol=2e-3 if mean else 1e-5)
