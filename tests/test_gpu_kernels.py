"""Every op of a step, an update and an evaluation has a GPU kernel, or one of XLA's for GPUs inside compiled programs.

Held against the wheel's own list. What is meant to run on the host is named below, with its reason; anything else
would be copied to the host and back in every step, without a word.
"""

import dataclasses

import gpu_like
import numpy as np
import pytest
import tensorflow as tf
from cases import long
from conftest import Trainable
from kernel_registry import described, has_kernel, loop_body, register_xla, split_by_xla

from trainer.config import AUGMENTATIONS, MODELS, OPTIMIZERS
from trainer.data.dataset import in_memory
from trainer.train.evaluation import Evaluator
from trainer.train.step.train_loop import TrainLoop

pytestmark = pytest.mark.slow

# Op to why it is on the host.
ON_THE_HOST = {"Timestamp": "the clock is the host's; of several workers alone"}
WITHOUT_XLA = {
    "GatherV2 Taxis=int32 Tindices=int32 Tparams=uint8": "of one batch's images, in flip, crop and randaugment",
    "GatherV2 Taxis=int32 Tindices=int64 Tparams=uint8": "of all images, with --input=device alone"}
COUNT = tf.TensorSpec([], tf.int32)
EVERY = tuple(name for name in AUGMENTATIONS if name != "flip")  # which alternating_flip excludes, and has the ops of


@pytest.fixture(autouse=True)
def as_on_gpus():
    register_xla()
    with gpu_like.no_merge_call():
        yield


def require_kernels(concrete, besides=()):
    """Fails with every op that has no kernel where it would run, but for those that are known."""
    functions, body = loop_body(concrete)
    outside, inside = split_by_xla(functions, body)
    missing = {described(node) for node in outside
               if not has_kernel(node, "GPU", "DEFAULT")} - {*ON_THE_HOST, *besides}
    missing |= {f"in XLA: {described(node)}" for node in inside if not has_kernel(node, "XLA_GPU_JIT")}
    assert not missing
    return outside, inside


def traced(small, replicas=2, workers=1, **settings):
    settings = {"xla": True, "kind": gpu_like.KIND, **settings}
    made = Trainable(small, replicas, **settings)
    if workers > 1:
        runtime = dataclasses.replace(made.runtime, workers=workers)
        made.loop = TrainLoop(dataclasses.replace(made.job, runtime=runtime), made.state, made.feed)
    return made


@pytest.mark.parametrize("name", [
    long("ResNet50"), "MobileNetV2",
    long("EfficientNetB0")])
def test_the_step_of_networks_of_keras(name):
    images = np.zeros((8, 64, 64, 3), np.uint8)
    data = in_memory("large", ("a", "b"), (images, np.arange(8) % 2), (images, np.arange(8) % 2))
    require_kernels(traced(data, 1, model=f"keras:{name}", precision="bfloat16",
                           batch_size=2).loop.trace())


@pytest.mark.parametrize("model", [
    *(name for name in MODELS if name != "resnet50"), long("resnet50"),
    "small_models:dropped"])
def test_the_step_of_every_model(small, model):
    _, inside = require_kernels(traced(small, 1, model=model, precision="bfloat16",
                                       batch_size=2).loop.trace())
    assert len(inside) > 100


@pytest.mark.parametrize("precision, loss", [("float32", "cross_entropy"), ("bfloat16", "focal"), ("float16", "bce")])
@pytest.mark.parametrize("where", ["host", "device"])
def test_the_step_in_every_precision_and_with_every_loss(small, precision, loss, where):
    require_kernels(traced(small, precision=precision, input=where, clip_norm=1.0, ledger=True, schedule="cosine",
                           label_smoothing=0.1, class_weights="balanced", loss=loss,
                           model="small_models:regularized").loop.trace())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_update_of_every_optimizer(small, optimizer):
    require_kernels(traced(small, optimizer=optimizer, weight_decay=0.1, warmup_epochs=1, head_learning_rate=0.1,
                           layer_decay=0.5, model="small_models:smooth").loop.trace())


def test_the_step_with_every_augmentation(small):
    require_kernels(traced(small, augment=EVERY, model="small_models:smooth").loop.trace())


def test_the_step_of_several_workers(small):
    outside, _ = require_kernels(traced(small, workers=2, ledger=True, log_gradient_norm=True).loop.trace())
    assert any(node.op == "Timestamp" for node in outside)


def test_the_step_in_passes_over_all_replicas(small):
    require_kernels(traced(small, model="small_models:compact", accumulate_steps=2, microbatch="8",
                           sync_batch_norm=True, ema_decay=0.9, ledger=True).loop.trace())


def test_the_step_in_passes_with_random_layers(small):
    require_kernels(traced(small, model="small_models:random", accumulate_steps=2, ema_decay=0.9).loop.trace())


@pytest.mark.parametrize("xla", [True, False])
def test_evaluation(small, xla):
    made = traced(small, model="small_models:regularized", xla=xla)
    evaluator = Evaluator(made.state.model, small.test, made.runtime, per_replica_batch_size=12, flips=True,
                          translates=True)
    require_kernels(evaluator._function.get_concrete_function(COUNT))


@pytest.mark.parametrize("more", [{}, {"augment": EVERY, "loss": "bce"},
                                  {"input": "device", "loss": "focal"}])
def test_a_step_without_xla(small, more):
    made = traced(small, xla=False, ledger=True, clip_norm=1.0, precision="bfloat16",
                  model="small_models:regularized", **more)
    outside, inside = require_kernels(made.loop.trace(), WITHOUT_XLA if more else ())
    assert len(outside) > 300 and not inside


def test_an_op_without_a_kernel_is_found(small):
    @tf.function
    def loop(count):
        total = tf.zeros([2], tf.int64)
        for _ in tf.range(count):
            total = tf.pad(total, [[1, 1]])[1:-1]
        return total

    with pytest.raises(AssertionError, match="Pad T=int64"):
        require_kernels(loop.get_concrete_function(COUNT))


def test_the_checksums_of_a_save(small):
    made = traced(small, model="small_models:penalized", precision="float16", optimizer="adam")
    made.state.checksums()
    graph = made.state._sum.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    missing = {described(node) for node in nodes if not has_kernel(node, "GPU", "DEFAULT")}
    assert len(nodes) > 20 and not missing - {"Placeholder dtype=resource"}
