"""What random layers draw for an example: the same on any number of replicas, under XLA, in any place of the batch."""

import types

import gpu_like
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Trainable

from trainer.device_kind import CPU
from trainer.storage import bit_versions
from trainer.train.step.example_draws import drawn_by_example

# The rate is all but 0, so weights can stand for themselves: losses tell what was drawn.
SETTINGS = {"model": "small_models:random", "optimizer": "sgd", "learning_rate": 1e-8}


@pytest.fixture(scope="module")
def through(small):
    """(a training loop of one replica, its first six losses)."""
    made = Trainable(small, 1, **SETTINGS)
    return made, made.train(6).loss


@pytest.mark.slow
@pytest.mark.parametrize("replicas, xla, kind, first_step", [(3, False, CPU, 0), (1, True, gpu_like.KIND, 0),
                                                             (2, False, CPU, 3)])
def test_any_replica_count_draws_the_same_wherever_a_start_begins(trainable, through, replicas, xla, kind, first_step):
    """Dropout of every kind, noise, a layer of keras.random, and one that is called twice."""
    made = trainable(replicas, xla=xla, kind=kind, first_step=first_step, **SETTINGS)
    np.testing.assert_allclose(made.train(3).loss, through[1][first_step:first_step + 3], rtol=1e-4)


@pytest.mark.slow
def test_a_run_that_began_with_older_draws_goes_on_with_them(trainable, through):
    """Keras's own functions draw then, from states that are the replica's."""
    made = trainable(1, **SETTINGS)
    made.state.bit_versions = {**bit_versions.CURRENT, "draws": 2}
    assert abs(made.train(1).loss[0] - through[1][0]) > 1e-3
    ops = [{node.op for function in each.loop.trace().graph.as_graph_def().library.function
            for node in function.node_def} for each in (made, through[0])]
    draws = {"StatelessRandomUniformV2", "StatelessRandomNormalV2"}
    assert draws <= ops[0] and not draws & ops[1]


def state_of(generators):
    """What `drawn_by_example` reads of a run's state."""
    return types.SimpleNamespace(bit_versions=bit_versions.CURRENT, random_states=[each.state for each in generators])


def drawn(function, seeds, generators):
    with drawn_by_example(state_of(generators), tf.constant(seeds, tf.uint32)):
        return [function(generator).numpy() for generator in generators]


def test_an_example_draws_the_same_in_any_row_and_other_numbers_in_any_other_draw():
    generators = [keras.random.SeedGenerator(0) for _ in range(2)]

    def draw(generator):
        return tf.stack([keras.random.uniform((3, 50), seed=generator), keras.random.uniform((3, 50), seed=generator)])

    first, second = drawn(draw, [7, 8, 9], generators)
    moved, _ = drawn(draw, [9, 1, 7], generators)
    np.testing.assert_array_equal(moved[:, 2], first[:, 0])
    np.testing.assert_array_equal(moved[:, 0], first[:, 2])
    rows = np.concatenate([first.reshape(-1, 50), second.reshape(-1, 50), moved[:, 1]])
    assert len(np.unique(rows)) == rows.size
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlations).max() < 0.6


def test_what_is_drawn_has_the_distributions_of_keras():
    """The first moments and the ends, over two million numbers of each."""
    shape, generator, seeds = (200, 10_000), keras.random.SeedGenerator(0), np.arange(200) * 3
    uniform, = drawn(lambda each: keras.random.uniform(shape, -1.0, 3.0, seed=each), seeds, [generator])
    normal, = drawn(lambda each: keras.random.normal(shape, 2.0, 3.0, seed=each), seeds, [generator])
    whole, = drawn(lambda each: keras.random.randint(shape, -2, 4, seed=each), seeds, [generator])
    kept, = drawn(lambda each: keras.random.dropout(tf.ones(shape), 0.3, seed=each), seeds, [generator])
    half, = drawn(lambda each: keras.random.uniform(shape, dtype="bfloat16", seed=each), seeds, [generator])
    assert np.mean(uniform) == pytest.approx(1, abs=4e-3) and np.var(uniform) == pytest.approx(16 / 12, abs=6e-3)
    assert uniform.min() >= -1 and uniform.max() < 3 and half.astype(np.float32).max() < 1
    scaled = (normal - 2) / 3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert np.mean(scaled.astype(np.float64) ** power) == pytest.approx(moment, abs=0.03)
    np.testing.assert_allclose(np.bincount(whole.ravel() + 2) / whole.size, np.full(6, 1 / 6), atol=2e-3)
    np.testing.assert_allclose(np.unique(kept), [0, 1 / 0.7], rtol=1e-6)
    for mean in (kept.mean(0), kept.mean(1)):  # of each element, and of each example
        assert np.abs(mean - 1).max() < 6 * np.sqrt(0.3 / 0.7 / (shape[0] if len(mean) > 200 else shape[1]))


def test_what_is_not_drawn_for_examples_is_kerass_own():
    generators = [keras.random.SeedGenerator(5) for _ in range(2)]
    other = keras.random.SeedGenerator(5)  # of no layer of the model
    with drawn_by_example(state_of(generators[:1]), tf.constant([1, 2], tf.uint32)):
        results = [keras.random.uniform((3,), seed=generators[0]), keras.random.uniform((2, 3), seed=other),
                   keras.random.uniform((2, 3), seed=4)]
    wanted = [keras.random.uniform((3,), seed=generators[1]), keras.random.uniform(
        (2, 3), seed=keras.random.SeedGenerator(5)), keras.random.uniform((2, 3), seed=4)]
    for result, value in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(result, value)
