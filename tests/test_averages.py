"""--ema_decay: the averages held against their equation and Keras's use_ema; what is evaluated, saved and restored."""

import gpu_like
import keras
import numpy as np
import pytest

from trainer.device_kind import CPU
from trainer.train.evaluation import Evaluator
from trainer.train.state import evaluated_variables, model_variables

SETTINGS = {"model": "small_models:compact", "optimizer": "sgd", "learning_rate": 0.05}


def values(model):
    return [variable.numpy().astype(np.float64) for variable in model.variables]


@pytest.mark.slow
@pytest.mark.parametrize("replicas, xla, kind", [(2, False, CPU), (1, True, gpu_like.KIND),
                                                 (2, True, gpu_like.KIND)])
def test_averages_follow_their_equation_on_every_path(trainable, replicas, xla, kind):
    """a ← a + (1 − d)(w − a) with d = min(decay, (1 + t) / (10 + t)), batch norm's statistics included."""
    with gpu_like.no_merge_call():
        made = trainable(replicas, xla=xla, kind=kind, ema_decay=0.15, **SETTINGS)
        wanted = values(made.state.model)
        for number in range(4):
            made.train(1)
            decay = min(0.15, (1 + number) / (10 + number))
            wanted = [old + (1 - decay) * (new - old)
                      for old, new in zip(wanted, values(made.state.model), strict=True)]
            for average, value in zip(values(made.state.averages.model), wanted, strict=True):
                np.testing.assert_allclose(average, value, rtol=1e-5, atol=1e-7)
    for variable in made.state.averages.model.variables:
        copies = [copy.numpy() for copy in made.runtime.strategy.experimental_local_results(variable.value)]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])
    assert len(set(made.state.checksums())) == 1


def test_weights_are_averaged_as_keras_averages_them(trainable):
    """Where the warm-up of the decay is over from the start, and the first weights are forgotten."""
    made = trainable(1, ema_decay=0.1, **{**SETTINGS, "momentum": 0})
    theirs = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.1)
    shadow = [keras.Variable(variable) for variable in made.state.model.trainable_variables]
    theirs.build(shadow)
    for _ in range(9):
        before = [variable.numpy() for variable in made.state.model.trainable_variables]
        made.train(1)
        theirs.apply([(old - new.numpy()) / 0.05 for old, new in
                      zip(before, made.state.model.trainable_variables, strict=True)], shadow)
    for average, other in zip(made.state.averages.model.trainable_variables, theirs._model_variables_moving_average,
                              strict=True):
        np.testing.assert_allclose(average.numpy(), other.numpy(), atol=2e-6)


def test_a_skipped_step_moves_no_average(trainable):
    made = trainable(2, ema_decay=0.9, precision="float16", **SETTINGS)
    made.train(2)
    before = values(made.state.averages.model)
    made.state.loss_scale.assign(2.0**60)
    assert not made.train(1).finite[0]
    for average, old in zip(values(made.state.averages.model), before, strict=True):
        np.testing.assert_array_equal(average, old)


@pytest.mark.slow
def test_a_checkpoint_has_averages_only_where_they_are_on_and_they_are_what_is_evaluated(trainable, small):
    on, off = trainable(1, ema_decay=0.5, **SETTINGS), trainable(1, **SETTINGS)
    names, fewer = set(on.state.variables()), set(off.state.variables())
    assert fewer < names and {name.split("/")[0] for name in names - fewer} == {"average"}
    assert set(evaluated_variables(on.state.model, on.config)) == names - fewer
    assert set(evaluated_variables(off.state.model, off.config)) == set(model_variables(off.state.model)) < fewer
    np.testing.assert_array_equal(on.train(5).loss, off.train(5).loss)  # the run trains on its own weights
    answers = [Evaluator(model, small.test, on.runtime, per_replica_batch_size=10).run()
               for model in (on.state.evaluated, on.state.averages.model, on.state.model)]
    assert answers[0] == answers[1] != answers[2]


def test_a_state_of_few_bits_is_copied(trainable):
    made = trainable(1, model="small_models:penalized", ema_decay=0.99, optimizer="sgd", learning_rate=0.01)
    made.train(3)
    mean, average = (next(variable.numpy() for variable in model.variables if variable.dtype == "float16")
                     for model in (made.state.model, made.state.averages.model))
    assert mean == average > 0
