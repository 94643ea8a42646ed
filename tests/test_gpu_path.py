"""The whole GPU path on 1, 2 and 4 logical CPU devices, held against the CPU path."""

import collections
import dataclasses

import gpu_like
import numpy as np
import pytest
import tensorflow as tf
from cases import long
from conftest import make_runtime

from trainer.config import Config
from trainer.data.pipeline import open_feed
from trainer.data.positions import batch_at
from trainer.plan import Job, make_plan
from trainer.train.evaluation import Evaluator

pytestmark = pytest.mark.slow

SETTINGS = {"optimizer": "sgd", "learning_rate": 0.001, "ledger": True, "augment": ("flip", "crop")}
MODELS = ("small_models:smooth", "small_models:normalized", "small_models:dropped", "small_models:regularized", "cnn3")


@pytest.fixture(autouse=True)
def as_on_gpus():
    with gpu_like.no_merge_call():
        yield


def state_of(made):
    return [variable.numpy() for variable in made.state.snapshot().values()]


@pytest.mark.parametrize("replicas, where, model", [
    *((2, "device", model) for model in MODELS), (1, "device", "cnn3"), (1, "device", "small_models:normalized"),
    (2, "host", "small_models:regularized")])
def test_without_xla_the_gpu_path_equals_the_cpu_path_to_the_last_bit(trainable, replicas, where, model):
    settings = {**SETTINGS, "model": model, "clip_norm": 1.0}
    cpu, gpu = trainable(replicas, **settings), trainable(replicas, kind=gpu_like.KIND, input=where, **settings)
    ours, theirs = cpu.train(10), gpu.train(10)
    np.testing.assert_array_equal(theirs.ids, ours.ids)
    np.testing.assert_array_equal(theirs.loss, ours.loss)
    for mine, other in zip(state_of(gpu), state_of(cpu), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("replicas, xla, model", [
    (4, False, "small_models:regularized"), (2, True, "small_models:smooth"), (1, True, "small_models:normalized"),
    *(long(*each) for each in (
        (4, False, "cnn3"), *((1, True, model) for model in MODELS if model != "small_models:normalized"),
        (2, True, "small_models:regularized"), (2, True, "cnn3"), (4, True, "small_models:smooth")))])
def test_the_gpu_path_has_the_ids_and_losses_of_the_cpu_path(trainable, replicas, xla, model):
    settings = {**SETTINGS, "model": model}
    # A max pool chooses otherwise where XLA rounds otherwise.
    ours = trainable(replicas, xla=xla and model == "cnn3", **settings).train(10)
    theirs = trainable(replicas, kind=gpu_like.KIND, xla=xla, **settings).train(10)
    np.testing.assert_array_equal(theirs.ids, ours.ids)
    np.testing.assert_allclose(theirs.loss, ours.loss, rtol=1e-6)


@pytest.mark.parametrize("xla, where, resident", [
    (True, "auto", True), (True, "host", False), (False, "auto", False), (False, "device", True)])
def test_images_lie_on_the_device_where_xla_can_gather_them(trainable, xla, where, resident):
    feed = trainable(2, kind=gpu_like.KIND, xla=xla, input=where).feed
    assert (feed.resident[0] is not None) == resident
    if resident:
        assert all(labels.dtype == tf.int64 for _, labels in feed.resident)  # int32 tensors of a GPU lie on the host


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_evaluation_and_snapshots_take_the_same_way(trainable, small, replicas):
    made = [trainable(replicas, kind=kind, model="small_models:normalized", **SETTINGS)
            for kind in (gpu_like.KIND, make_runtime(1).kind)]
    answers = [Evaluator(each.state.model, small.test, each.runtime, per_replica_batch_size=12).run() for each in made]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("calls", [[10], [1, 1, 8], [3, 6, 1]])
def test_every_feed_gives_the_batches_of_the_cpu(small, calls):
    config = Config(batch_size=24, epochs=1)
    plan = make_plan(config, small.train.size, 2)
    ours, theirs = (open_feed(Job(config, plan, make_runtime(2, kind=kind, xla=True), small), first_step=0)
                    for kind in (make_runtime(1).kind, gpu_like.KIND))
    taken = [theirs.positions.take(steps) for steps in calls]
    for replica, mine in enumerate(ours.iterators):
        others = [batch_at(step) for call in taken for step in call[replica]]
        for batch, resident in zip(mine, others, strict=True):
            assert type(batch) is type(resident) and resident.images is None
            np.testing.assert_array_equal(batch.ids, resident.ids)
            np.testing.assert_array_equal(batch.seeds, resident.seeds)


def test_no_collective_is_inside_an_xla_program(trainable):
    made = trainable(2, kind=gpu_like.KIND, xla=True, **SETTINGS)
    graph = made.loop.trace().graph.as_graph_def()
    functions = {function.signature.name: function for function in graph.library.function}
    compiled = [name for name, function in functions.items() if function.attr["_XlaMustCompile"].b]
    assert compiled
    counts = collections.Counter(node.op for function in functions.values() for node in function.node_def)
    assert counts["CollectiveReduceV2"] == 4  # of each replica: the gradients, and the ledger's ids
    for name in compiled:
        assert not any("Collective" in op for op in _ops_below(name, functions)), name


def test_gradients_travel_in_8_bits_where_that_is_asked_for(trainable):
    made = trainable(2, kind=gpu_like.KIND, xla=True, all_reduce="bfloat16", model="small_models:normalized")
    graph = made.loop.trace().graph.as_graph_def()
    types = collections.Counter(node.attr["T"].type for function in graph.library.function
                                for node in function.node_def if node.op == "CollectiveReduceV2")
    assert types == {tf.bfloat16.as_datatype_enum: 2, tf.float32.as_datatype_enum: 2}
    made.train(2)


def _ops_below(name, functions):
    """Every op of a function and of those that it calls."""
    for node in functions[name].node_def:
        yield node.op
        for value in node.attr.values():
            if value.WhichOneof("value") == "func":
                yield from _ops_below(value.func.name, functions)


IN_PARTS = dataclasses.replace(gpu_like.KIND, fuses=False)


@pytest.mark.parametrize("replicas, settings", [
    (1, {"model": "small_models:penalized", "optimizer": "adamw", "weight_decay": 0.01, "schedule": "cosine"}),
    (2, {"model": "small_models:frozen", "optimizer": "adam", "clip_norm": 1.0}),
    *(long(*each) for each in (
        (1, {"model": "cnn3"}), (1, {"model": "small_models:regularized", "clip_norm": 0.1}),
        (4, {"model": "small_models:dropped"})))])
def test_a_step_in_one_program_or_two_is_the_step_in_parts(trainable, replicas, settings):
    settings = {"learning_rate": 0.001, "augment": ("flip", "crop"), **settings}
    made = [trainable(replicas, kind=kind, xla=True, **settings) for kind in (IN_PARTS, gpu_like.KIND)]
    parts, fused = (each.train(10) for each in made)
    np.testing.assert_allclose(fused.loss, parts.loss, rtol=1e-6)
    np.testing.assert_allclose(fused.learning_rate, parts.learning_rate, rtol=1e-6)
    for mine, other in zip(*(state_of(each) for each in made), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-2, atol=2e-5)
    assert [int(each.state.optimizer.iterations.numpy()) for each in made] == [10, 10]


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(trainable, replicas):
    """Of float16 whose scale is far too high: the same steps are skipped as in parts, and the scale falls alike."""
    made = [trainable(replicas, kind=kind, xla=True, model="small_models:penalized", precision="float16",
                      optimizer="sgd", learning_rate=0.01) for kind in (IN_PARTS, gpu_like.KIND)]
    before = made[1].weights()
    for each in made:
        each.state.loss_scale.assign(2.0**40)
    parts, fused = (each.train(3) for each in made)
    np.testing.assert_array_equal(fused.finite, [False] * 3)
    np.testing.assert_array_equal(fused.loss_scale, parts.loss_scale)
    for mine, other in zip(made[1].weights(), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert [int(each.state.skipped.numpy()) for each in made] == [3, 3]
    assert int(made[1].state.optimizer.iterations.numpy()) == 0 and int(made[1].state.step.numpy()) == 3


def outside_xla(made):
    """The operations of a step that no XLA program holds, without those that do nothing."""
    graph = made.loop.trace().graph.as_graph_def()
    functions = {function.signature.name: function for function in graph.library.function}
    (loop,) = [node for function in (graph.node, *(each.node_def for each in functions.values())) for node in function
               if node.op in ("While", "StatelessWhile") and "body" in node.attr][:1]
    counts = collections.Counter()

    def look(name):
        for node in functions[name].node_def:
            called = [value.func.name for value in node.attr.values() if value.WhichOneof("value") == "func"]
            if called and not functions[called[0]].attr["_XlaMustCompile"].b:
                for inner in called:
                    look(inner)
            elif node.op not in ("NoOp", "Identity", "Const", "Placeholder"):
                counts[node.op] += 1

    look(loop.attr["body"].func.name)
    return counts


@pytest.mark.parametrize("model, most", [("cnn3", 15), ("resnet20", 20)])
def test_a_step_of_one_replica_is_one_program_and_little_else(trainable, model, most):
    made = trainable(1, kind=gpu_like.KIND, xla=True, model=model, batch_size=2, epochs=1)
    counts = outside_xla(made)
    assert counts.total() <= most, counts
    assert not [op for op in counts if "Iterator" in op or "RemoteCall" in op]  # the images are resident
    assert not {"If", "StatelessIf", "Switch", "Case"} & counts.keys()


def test_a_step_of_two_replicas_has_no_branch_outside_xla(trainable):
    counts = outside_xla(trainable(2, kind=gpu_like.KIND, xla=True, model="small_models:normalized"))
    assert not {"If", "StatelessIf", "Switch", "Case"} & counts.keys()
