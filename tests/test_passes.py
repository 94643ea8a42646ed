"""--accumulate_steps and --microbatch: a step in several passes held against the step in one, on every path."""

import dataclasses
import os
import re

import gpu_like
import keras
import numpy as np
import pytest
from conftest import ROOT, Trainable

from trainer.config import Config
from trainer.data import order
from trainer.device_kind import CPU
from trainer.errors import UsageError
from trainer.plan import make_plan
from trainer.train import microbatch

# Clipped and penalized; each class, each label and each example counts as in the whole batch.
SETTINGS = {"model": "small_models:drawn", "optimizer": "sgd", "learning_rate": 0.05, "clip_norm": 0.3, "ledger": True,
            "class_weights": "balanced", "label_smoothing": 0.1, "augment": ("flip", "mixup")}
STEPS = 3


@pytest.fixture(scope="module")
def whole(small):
    """(a training loop that takes 24 examples in one pass, its first records)."""
    made = Trainable(small, 1, **SETTINGS)
    return made, made.train(STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("replicas, xla, kind, passes", [
    (1, False, CPU, {"accumulate_steps": 4, "batch_size": 6}), (2, False, CPU, {"microbatch": "4"}),
    (1, True, gpu_like.KIND, {"accumulate_steps": 2, "batch_size": 12, "microbatch": "4"}),
    (2, True, gpu_like.KIND, {"microbatch": "12"})])
def test_a_step_in_passes_is_the_step_in_one(trainable, whole, replicas, xla, kind, passes):
    """Ids, losses, counts and weights, the draws of dropout and augmentation included."""
    big, wanted = whole
    with gpu_like.no_merge_call():
        made = trainable(replicas, xla=xla, kind=kind, **{**SETTINGS, **passes})
        found = made.train(STEPS)
    assert made.plan.batch_size == 24 and made.plan.passes > 1
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_allclose(found.loss, wanted.loss, rtol=2e-6)
    np.testing.assert_array_equal(found.correct, wanted.correct)
    np.testing.assert_array_equal(found.examples, [24] * STEPS)
    for mine, other in zip(made.weights(), big.weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
    assert made.state.optimizer.iterations.numpy() == made.state.step.numpy() == STEPS


@pytest.mark.slow
def test_float16_scales_and_judges_a_step_and_not_a_pass(trainable):
    settings = {**SETTINGS, "precision": "float16", "augment": ()}
    one, many = trainable(1, **settings), trainable(1, **settings, microbatch="6")
    for scale, finite in ((2.0**24, False), (2.0**10, True)):
        for made in (one, many):
            made.state.loss_scale.assign(scale)
        wanted, found = one.train(3), many.train(3)
        np.testing.assert_array_equal(found.loss_scale, wanted.loss_scale)  # halved once a step
        assert found.finite.tolist() == wanted.finite.tolist() == [finite] * 3
        np.testing.assert_allclose(found.loss, wanted.loss, rtol=2e-3)
    for mine, other in zip(many.weights(), one.weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)


def test_batch_norm_takes_the_moments_of_each_pass(trainable, small):
    """As Keras does if it is given the passes one after the other; the moving averages move once in each."""
    made = trainable(1, model="small_models:compact", optimizer="sgd", learning_rate=0.01, microbatch="8")
    copy = keras.models.clone_model(made.state.model)
    copy.set_weights(made.weights())
    ids = order.Shuffle(0, 240).stream(0, 24)[0]
    for rows in ids.reshape(3, 8):
        copy(small.train.images[rows].astype(np.float32), training=True)
    made.train(1)
    for mine, other in zip(made.state.model.non_trainable_variables, copy.non_trainable_variables, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_graph_holds_one_pass_however_many_there_are(trainable):
    def products(**settings):
        graph = trainable(1, **{**SETTINGS, **settings}).loop.trace().graph.as_graph_def()
        return sum(node.op == "MatMul" for function in graph.library.function for node in function.node_def)

    assert products(accumulate_steps=2) == products(accumulate_steps=64) > 0


def test_a_replica_takes_consecutive_rows_of_every_pass():
    """So what the passes take together doesn't depend on the number of replicas."""
    batch = np.arange(24)[None]
    parts = [order.rows_of((batch, batch), 2, replica, 3)[0] for replica in range(2)]
    assert parts[0].tolist() == [[0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts, 1)), batch)


def plan(replicas=1, **settings):
    return make_plan(Config(**{"batch_size": 24, "epochs": 1, **settings}), 960, replicas)


def test_steps_count_updates():
    made = plan(accumulate_steps=4, microbatch="6", warmup_epochs=0.5, replicas=2)
    assert (made.batch_size, made.passes, made.per_replica_pass_size) == (96, 16, 3)
    assert (made.total_steps, made.warmup_steps, made.epoch(5)) == (10, 5, 0.5)
    assert made.sentence().startswith("global batch 96 = 16 passes × 2 replicas × 3; 960 examples make 10 steps")


@pytest.mark.parametrize("settings, part", [
    ({"microbatch": "7"}, r"received 7\n.*use one of 24, 12, 8, 6, 4, 3, 2, 1"),
    ({"microbatch": "6", "replicas": 4}, "divide --batch_size=24"), ({"microbatch": "48"}, "received 48"),
    ({"microbatch": "3", "augment": ("mixup",)}, r"--microbatch=3 gives each of 1 3")])
def test_passes_that_do_not_go_into_the_batch_are_refused(settings, part):
    with pytest.raises(UsageError) as caught:
        plan(**settings)
    assert re.search(part, str(caught.value)), caught.value


@pytest.mark.parametrize("fitting", range(1, 25))
def test_the_largest_passes_that_fit_are_found_in_few_trials(fitting):
    tried, sizes = [], [24, 12, 8, 6, 4, 3, 2, 1]
    found = microbatch.largest(sizes, lambda rows: tried.append(rows) or rows <= fitting)
    assert found == max(rows for rows in sizes if rows <= fitting)
    assert tried[0] == 24 and len(tried) == len(set(tried)) <= 4


def test_no_passes_that_fit_end_the_run():
    with pytest.raises(UsageError, match="not even passes of 2 rows fit"):
        microbatch.largest([4, 2], lambda _: False)


@pytest.mark.slow
def test_a_process_of_its_own_runs_out_of_memory(trainable, monkeypatch):
    """The largest passes are found without this process noticing; what is remembered is not tried again."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "tests/support"))))
    made = trainable(2, model="small_models:greedy", microbatch="auto", batch_size=8)
    config, data, runtime = (getattr(made.job, name) for name in ("config", "data", "runtime"))
    config = dataclasses.replace(config, virtual_devices=2, num_gpus=0)
    assert microbatch.decide(config, data, runtime, lambda: None) == 4
    assert microbatch.decide(config, data, runtime, lambda: 2) == 2
    assert microbatch.decide(dataclasses.replace(config, microbatch="2"), data, runtime, lambda: 8) is None
