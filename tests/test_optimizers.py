"""Optimizers held against Keras's own, and schedules against their equations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import OPTIMIZERS, Config
from trainer.plan import make_plan
from trainer.train.optimizers import Schedule, make_optimizer

ORIGINALS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW,
             "lamb": keras.optimizers.Lamb, "lion": keras.optimizers.Lion, "muon": keras.optimizers.Muon}


def variables():
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32), name=f"v{number}")
            for number, shape in enumerate([(4, 5), (5,), (3, 3, 2, 4)])]


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_are_those_of_keras(name, xla):
    config = Config(optimizer=name, learning_rate=0.01)
    ours, mine = make_optimizer(config, make_plan(config, 1000, 1)), variables()
    settings = {"sgd": {"momentum": 0.9, "nesterov": True},
                "adamw": {"weight_decay": 0.0},
                "muon": {"momentum": 0.9, "weight_decay": None, "adam_weight_decay": None}}
    original = ORIGINALS[name](**{"learning_rate": 0.01, "weight_decay": None, **settings.get(name, {})})
    theirs = variables()
    ours.build(mine)
    original.build(theirs)
    update = tf.function(lambda gradients: ours.update(gradients, mine), jit_compile=xla)
    rng = np.random.default_rng(1)
    for _ in range(5):
        gradients = [tf.constant(rng.normal(size=v.shape).astype(np.float32)) for v in mine]
        update(gradients)
        ours.iterations.assign_add(1)
        original.apply(gradients, theirs)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_kernels_and_leaves_biases(name):
    config = Config(optimizer=name, learning_rate=0.1, weight_decay=0.5, momentum=0)
    optimizer, mine = make_optimizer(config, make_plan(config, 1000, 1)), variables()
    before = [v.numpy() for v in mine]
    optimizer.build(mine)
    optimizer.update([tf.zeros(v.shape) for v in mine], mine)
    factors = [0.95, 1, 0.95]
    for variable, old, factor in zip(mine, before, factors, strict=True):
        np.testing.assert_allclose(variable.numpy(), factor * old, rtol=1e-5)


@pytest.mark.parametrize("name, at, rate", [
    ("constant", 55, 2.0), ("cosine", 10, 2.0), ("cosine", 55, 1.0), ("cosine", 100, 0.0), ("linear", 55, 1.0),
    ("step", 54, 2.0), ("step", 55, 0.2), ("step", 78, 0.02), ("cosine", 0, 0.2), ("constant", 9, 2.0),
    ("linear", 4, 1.0), ("cosine", 200, 0.0)])
def test_schedules(name, at, rate):
    assert float(Schedule(name, 2.0, warmup=10, total=100)(at)) == pytest.approx(rate, abs=1e-6)


def test_no_warmup_begins_at_the_peak():
    assert float(Schedule("cosine", 2.0, warmup=0, total=100)(0)) == 2.0


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_lookahead_goes_back_a_part_of_the_way(name, xla):
    """After each 3 updates: slow ← slow + 0.3 · (fast − slow), fast ← slow; between them, Keras's own updates."""
    config = Config(optimizer=name, learning_rate=0.01, momentum=0.0, lookahead_steps=3, lookahead_alpha=0.3)
    plan = make_plan(config, 1000, 1)
    ours, mine = make_optimizer(config, plan), variables()
    original, theirs = ORIGINALS[name](0.01), variables()
    ours.build(mine)
    original.build(theirs)
    slow = [v.numpy() for v in theirs]
    plain = make_optimizer(Config(optimizer=name, momentum=0.0), plan)
    plain.build(variables())
    assert len(ours.variables) == len(plain.variables) + len(mine)
    update = tf.function(lambda gradients: ours.update(gradients, mine), jit_compile=xla)
    rng = np.random.default_rng(1)
    for number in range(1, 8):
        gradients = [tf.constant(rng.normal(size=v.shape).astype(np.float32)) for v in mine]
        update(gradients)
        ours.iterations.assign_add(1)
        original.apply(gradients, theirs)
        if number % 3 == 0:
            slow = [old + 0.3 * (v.numpy() - old) for old, v in zip(slow, theirs, strict=True)]
            for v, value in zip(theirs, slow, strict=True):
                v.assign(value)
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=3e-5, atol=3e-6)
