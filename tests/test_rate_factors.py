"""Learning rates of single weights, held against plain Keras with each step applied by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from trainer.config import OPTIMIZERS, Config
from trainer.errors import UsageError
from trainer.models.rate_factors import rate_factors
from trainer.plan import make_plan
from trainer.train.optimizers import make_optimizer

SETTINGS = {"bias_learning_rate_scale": 64.0, "head_learning_rate": 0.04, "layer_decay": 0.5}


def network():
    x = pixels = keras.Input((8, 8, 3))
    for _ in range(2):
        x = layers.BatchNormalization()(layers.Conv2D(4, 3)(x))
    inner = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(scale=False)])
    return keras.Model(pixels, layers.Dense(2)(layers.Flatten()(inner(x))))


def test_factors_are_those_of_the_layers():
    model, config = network(), Config(learning_rate=0.01, **SETTINGS)
    # (kernel, bias, factors, norm's bias) of two convolutions, of the one inside, and the last layer's kernel and bias.
    assert rate_factors(model, config) == [0.125, 0.125, 0.125, 8, 0.25, 0.25, 0.25, 16, 0.5, 0.5, 32, 4, 4]
    assert set(rate_factors(model, Config())) == {1.0}
    assert rate_factors(model, Config(head_learning_rate=0.1, learning_rate=0.1)) == [1.0] * 13


def test_a_model_without_norms_has_no_biases_to_scale():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(UsageError, match="--bias_learning_rate_scale=64"):
        rate_factors(model, Config(bias_learning_rate_scale=64.0))


def small_network():
    x = pixels = keras.Input((4,))
    x = layers.BatchNormalization(scale=False)(layers.Dense(3, use_bias=False)(x))
    return keras.Model(pixels, layers.Dense(2, use_bias=False)(x))


@pytest.mark.parametrize("name, xla", [*((name, False) for name in OPTIMIZERS), ("sgd", True)])
def test_each_weight_trains_as_in_an_optimizer_of_keras_with_its_own_rate(name, xla):
    config = Config(optimizer=name, learning_rate=0.01, weight_decay=0.1, **SETTINGS)
    ours, mine = make_optimizer(config, make_plan(config, 1000, 1)), small_network()
    ours.rate_factors = rate_factors(mine, config)
    assert ours.rate_factors == [0.5, 32, 4]
    weights = mine.trainable_variables
    theirs = [keras.Variable(v.numpy()) for v in weights]
    ours.build(weights)
    originals = []
    for factor, variable in zip(ours.rate_factors, theirs, strict=True):
        decay = 0.1 if len(variable.shape) > 1 else 0.0
        extra = {"sgd": {"momentum": 0.9, "nesterov": True},
                 "muon": {"momentum": 0.9, "adam_weight_decay": decay}}.get(name, {})
        kind = getattr(keras.optimizers, OPTIMIZERS[name])
        originals.append(kind(**{"learning_rate": 0.01 * factor, "weight_decay": decay, **extra}))
    update = tf.function(lambda gradients: ours.update(gradients, weights), jit_compile=xla)
    rng = np.random.default_rng(1)
    for _ in range(3):
        gradients = [tf.constant(rng.normal(size=v.shape).astype(np.float32)) for v in weights]
        update(gradients)
        ours.iterations.assign_add(1)
        for optimizer, gradient, variable in zip(originals, gradients, theirs, strict=True):
            optimizer.apply([gradient], [variable])
    for a, b in zip(weights, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=3e-5, atol=3e-6)
