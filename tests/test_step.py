"""The training step: the same on any number of replicas, held against plain Keras; skips, scales, random layers."""

import dataclasses
import time

import numpy as np
import pytest
import tensorflow as tf
from cases import long
from conftest import Trainable

from trainer.config import Config
from trainer.data import order
from trainer.data.array_split import ArraySplit
from trainer.data.dataset import in_memory
from trainer.data.pipeline import open_feed
from trainer.distributed import collectives
from trainer.errors import DeviceError, DivergedError
from trainer.storage import bit_versions
from trainer.train.loss_monitor import LossMonitor
from trainer.train.losses import cross_entropy
from trainer.train.metrics import RunMetrics
from trainer.train.step import train_loop
from trainer.train.step.train_loop import TrainLoop


def relative(a, b):
    return np.max(np.abs(a - b) / np.abs(b))


@pytest.mark.slow
@pytest.mark.parametrize("replicas, settings", [
    long(2, {}), long(4, {}), (4, {"clip_norm": 0.05}), (2, {"label_smoothing": 0.1, "augment": ("flip", "crop")}),
    (4, {"schedule": "cosine", "warmup_epochs": 1, "weight_decay": 0.01})])
def test_any_replica_count_has_the_same_losses(trainable, replicas, settings):
    # SGD, not Adam, which hides a wrong scale.
    settings = {"model": "small_models:smooth", "optimizer": "sgd", "learning_rate": 0.05, **settings}
    one, many = (trainable(count, **settings).train(50) for count in (1, replicas))
    assert one.loss[-10:].mean() < one.loss[:10].mean() - 0.02
    assert relative(many.loss, one.loss) < 1e-5
    np.testing.assert_array_equal(many.correct, one.correct)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, long(4)])
def test_any_replica_count_has_the_same_losses_on_a_reference_model(trainable, replicas):
    one, many, faster = (trainable(count, optimizer="sgd", learning_rate=rate).train(50)
                         for count, rate in ((1, 0.001), (replicas, 0.001), (1, 0.002)))
    assert relative(many.loss, one.loss) < 1e-5
    assert relative(faster.loss, one.loss) > 1e-4  # so a wrong scale would show


@pytest.mark.slow
def test_xla_changes_rounding_only(trainable):
    settings = {"model": "small_models:smooth", "optimizer": "sgd", "learning_rate": 0.05}
    plain, compiled = (trainable(2, xla=xla, **settings).train(20) for xla in (False, True))
    assert relative(compiled.loss, plain.loss) < 1e-5


def test_the_first_loss_and_update_are_those_of_plain_keras(trainable, small):
    import keras

    made = trainable(2, optimizer="sgd", learning_rate=0.1, momentum=0)
    copy = keras.models.clone_model(made.state.model)
    copy.set_weights(made.weights())
    ids = order.batches(order.Shuffle(0, 240), 24, 1, 0, 0, 1)[0][0]
    x, y = small.train.images[ids].astype(np.float32), small.train.labels[ids]
    copy.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = copy.train_on_batch(x, y)
    records = made.train(1)
    assert records.loss[0] == pytest.approx(float(loss), rel=1e-6)
    for ours, theirs in zip(made.weights(), copy.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_repeats_to_the_last_bit(trainable):
    one, again = (trainable(2) for _ in range(2))
    np.testing.assert_array_equal(one.train(20).loss, again.train(20).loss)
    for a, b in zip(one.weights(), again.weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_how_many_steps_a_call_takes_changes_nothing_and_compiles_nothing(trainable):
    at_once, in_parts = trainable(2), trainable(2)
    whole = at_once.train(12)
    parts = [in_parts.train(count) for count in (1, 4, 7)]
    np.testing.assert_array_equal(np.concatenate([part.loss for part in parts]), whole.loss)
    assert in_parts.loop.function.experimental_get_tracing_count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2, long(4)])
def test_the_ledger_holds_what_the_pipelines_gave(trainable, small, replicas):
    made = trainable(replicas, ledger=True, first_step=5)
    ids = np.concatenate([made.train(count).ids for count in (1, 24)])
    np.testing.assert_array_equal(ids.ravel(), order.Shuffle(0, 240).stream(5 * 24, 30 * 24)[0])
    for epoch in (10, 20):  # of 10 steps each; the first is not whole
        assert sorted(ids[epoch - 5:epoch + 5].ravel()) == list(range(240))
    # Not worked out from the seed: other pipelines, other ids.
    other = trainable(replicas, ledger=True)
    feed = open_feed(dataclasses.replace(other.job, config=dataclasses.replace(other.config, seed=7)), first_step=0)
    other.loop = TrainLoop(other.job, other.state, feed)
    np.testing.assert_array_equal(other.train(3).ids.ravel(), order.Shuffle(7, 240).stream(0, 3 * 24)[0])
    assert trainable(replicas).train(2).ids is None


@pytest.mark.slow
@pytest.mark.parametrize("replicas, xla", [(1, True), (2, False), *(
    long(*each) for each in ((1, False), (2, True)))])
def test_images_on_the_device_change_nothing(trainable, replicas, xla):
    settings = {"model": "small_models:smooth", "augment": ("flip", "crop"), "xla": xla, "first_step": 3}
    host, device = (trainable(replicas, input=where, **settings) for where in ("host", "device"))
    difference = relative(host.train(12).loss, device.train(12).loss)
    assert difference < 1e-6 if xla else difference == 0  # XLA fuses otherwise where a gather is part of the program
    assert not device.feed.iterators and len(device.feed.positions.spec) == replicas


@pytest.mark.slow
@pytest.mark.parametrize("augment", [
    ("mixup",), ("flip", "crop", "cutout", "erasing", "jitter", "cutmix"),
    long(("flip", "crop", "cutout", "erasing", "jitter", "randaugment", "trivial", "mixup", "cutmix"))])
def test_augmentation_is_the_same_on_any_replica_count(trainable, augment):
    settings = {"model": "small_models:smooth", "optimizer": "sgd", "learning_rate": 0.01, "augment": augment}
    one, two, four = (trainable(count, **settings).train(20) for count in (1, 2, 4))
    assert relative(one.loss, two.loss) < 1e-5 and relative(two.loss, four.loss) < 1e-5


def test_classes_weigh_as_much_as_each_other(trainable, small):
    """Against the sum by hand, on a split of which class 0 has 96 of 240."""
    labels = np.where(np.arange(240) % 3 == 0, 0, small.train.labels)
    data = in_memory("t", small.classes, (small.train.images, labels), (small.test.images, small.test.labels))
    weights = 240 / (10 * np.bincount(labels, minlength=10))
    np.testing.assert_allclose(data.balanced_weights(), weights, rtol=1e-6)
    assert np.mean(weights[labels]) == pytest.approx(1)
    made = Trainable(data, 2, class_weights="balanced", model="small_models:smooth")
    ids = order.Shuffle(0, 240).stream(0, 24)[0]
    logits = made.state.model(data.train.images[ids].astype(np.float32), training=True).numpy()
    each = cross_entropy(tf.constant(labels[ids].astype(np.int32)), tf.constant(logits)).numpy()
    assert made.train(1).loss[0] == pytest.approx(np.mean(each * weights[labels[ids]]), rel=1e-5)


@pytest.mark.slow
def test_statistics_are_the_same_on_every_replica_and_their_mean(trainable):
    settings = {"model": "small_models:normalized", "optimizer": "sgd", "learning_rate": 0.01}
    one, many = (trainable(count, **settings) for count in (1, 4))
    for made in (one, many):
        made.train(1)
    for alone, shared in zip(one.state.buffers, many.state.buffers, strict=True):
        copies = [copy.numpy() for copy in many.runtime.strategy.experimental_local_results(shared.value)]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])
        if "mean" in alone.path:
            # The mean of a quarter's means is the mean of the whole; only the first layer's input is the same.
            np.testing.assert_allclose(copies[0], alone.numpy(), atol=0.02)
    first = [v for v in many.state.buffers if "mean" in v.path][0]
    alone = [v for v in one.state.buffers if "mean" in v.path][0]
    np.testing.assert_allclose(first.numpy(), alone.numpy(), atol=1e-6)
    assert np.abs(first.numpy()).max() > 1e-4


def everything(made):
    return [v.numpy() for v in [*made.state.model.variables, *made.state.optimizer.variables]]


@pytest.mark.slow
@pytest.mark.parametrize("replica", [0, 1])
def test_a_poisoned_example_skips_the_step_on_every_replica(trainable, replica):
    made = trainable(2, model="small_models:normalized", optimizer="adam")
    made.train(3)
    before = everything(made)
    poison_next(made, replica)
    records = made.train(1)
    assert not records.finite[0] and not np.isfinite(records.loss[0])
    for old, new in zip(before, everything(made), strict=True):
        np.testing.assert_array_equal(old, new)
    assert made.state.step.numpy() == 4 and made.state.skipped.numpy() == 1
    assert made.train(2).finite.all() and made.state.skipped.numpy() == 1


def poison_next(made, replica):
    """Makes the first step of the next training call non-finite on one replica: the model's input has a NaN there."""
    poison = tf.Variable(np.where(np.arange(made.runtime.replicas) == replica, np.nan, 0.0), dtype=tf.float32)

    def poisoned(model, images, step):
        number = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        return model(images + tf.where(step < 3.5, poison[number], 0.0), training=True)

    call_model_by(made, poisoned)


def call_model_by(made, function):
    """Lets training call a function of (model, images, float32 step) in place of the model."""
    state, model = made.state, made.state.model

    class Replaced:
        def __getattr__(self, name):
            return getattr(model, name)

        def __call__(self, images, training):
            return function(model, images, tf.cast(state.step, tf.float32))

    try:
        state.model = Replaced()
        made.loop = TrainLoop(made.job, state, made.feed)
    finally:
        state.model = model


def test_float16_scales_the_loss_and_finds_a_scale_that_fits(trainable):
    made = trainable(2, precision="float16", optimizer="sgd", learning_rate=0.02)
    made.state.loss_scale.assign(2.0**24)
    records = made.train(30)
    scale, skipped = float(made.state.loss_scale.numpy()), int(made.state.skipped.numpy())
    assert skipped > 0 and scale == 2.0 ** (24 - skipped) and not records.finite[0] and records.finite[-1]
    assert made.state.optimizer.iterations.numpy() == 30 - skipped
    plain = trainable(2, optimizer="sgd", learning_rate=0.02)
    assert abs(records.loss[0] - plain.train(1).loss[0]) < 0.01


def test_the_loss_scale_doubles_after_long_peace(trainable, monkeypatch):
    monkeypatch.setattr("trainer.train.step.update._GROW_LOSS_SCALE_AFTER", 5)
    made = trainable(1, precision="float16", optimizer="sgd", learning_rate=0.01)
    made.state.loss_scale.assign(8.0)
    assert made.train(11).finite.all()
    assert made.state.loss_scale.numpy() == 32.0 and made.state.finite_steps.numpy() == 1


def test_bfloat16_computes_otherwise_and_about_the_same(trainable):
    settings = {"model": "small_models:smooth", "optimizer": "sgd", "learning_rate": 0.05}
    full, half = (trainable(2, precision=precision, **settings).train(50).loss for precision in ("float32", "bfloat16"))
    assert 1e-5 < relative(half, full) < 0.02


def test_dropout_of_the_second_version_follows_from_seed_step_and_replica(trainable):
    settings = {"model": "small_models:dropped", "optimizer": "sgd", "learning_rate": 1e-8, "momentum": 0}
    through, resumed, other = (trainable(2, **settings, **more) for more in ({}, {"first_step": 3}, {"seed": 1}))
    for made in (through, resumed, other):
        made.state.bit_versions = {**bit_versions.CURRENT, "draws": 2}
    losses = through.train(6).loss
    # The rate is all but 0, so weights can stand for themselves; only the step tells the masks of 3 from those of 0.
    resumed.state.step.assign(3)
    assert relative(resumed.train(3).loss, losses[3:]) < 1e-3
    resumed.state.step.assign(0)
    assert relative(resumed.train(3).loss, losses[3:]) > 1e-2
    states = [copy.numpy() for copy in
              through.runtime.strategy.experimental_local_results(through.state.random_states[0].value)]
    assert states[0].tolist() != states[1].tolist()
    other.train(1)
    assert other.state.random_states[0].numpy()[0] != through.state.random_states[0].numpy()[0]


def test_constraints_hold(trainable):
    made = trainable(2, model="small_models:constrained", optimizer="sgd", learning_rate=1.0)
    made.train(5)
    assert np.linalg.norm(made.weights()[0], axis=0).max() <= 0.5 + 1e-6


def test_cross_entropy_with_smoothing():
    logits, labels = tf.constant([[2.0, 0.0, -1.0]]), tf.constant([0])
    log_p = np.log(np.exp([2, 0, -1]) / np.exp([2, 0, -1]).sum())
    target = np.array([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    assert cross_entropy(labels, logits, 0.1).numpy()[0] == pytest.approx(-(target * log_p).sum(), rel=1e-6)


def test_no_call_of_a_random_layer_draws_what_another_one_draws(trainable):
    """Keras counts a layer's state on by one at each call of the layer, so states must not be neighbours."""
    made, seen = trainable(2, model="small_models:dropped"), []
    for done in (0, 1, 2, 2**21 - 1, 2**21, 2**31):
        made.state.step.assign(done)
        made.train(1)
        seen += [tuple(copy.numpy().tolist()) for copy in
                 made.runtime.strategy.experimental_local_results(made.state.random_states[0].value)]
    calls = 100
    assert len({(key, count + call) for key, count in seen for call in range(calls)}) == calls * len(seen)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("xla", [False, True])
def test_frozen_weights_do_not_travel_and_keep_every_bit(trainable, replicas, xla, monkeypatch):
    sizes, pack = [], train_loop.pack
    monkeypatch.setattr(train_loop, "pack", lambda *given: sizes.append(pack(*given)[0].shape[0]) or pack(*given))
    made = trainable(replicas, model="small_models:frozen", optimizer="sgd", learning_rate=0.01, xla=xla, momentum=0)
    model = made.state.model
    before = [variable.numpy() for variable in made.state.buffers]
    kernel = model.trainable_variables[-2].numpy()
    made.train(5)
    moved = [variable.path for variable, old in zip(made.state.buffers, before, strict=True)
             if not np.array_equal(variable.numpy(), old)]
    assert [path.split("/")[-1] for path in moved] == ["moving_mean", "moving_variance"]  # of the one that trains
    assert np.abs(model.trainable_variables[-2].numpy() - kernel).max() > 0
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert set(sizes) == {trained + 2 * 8 + 3}  # the sums for the metrics are three


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_regularizers_and_statistics_of_any_type_train_in_every_precision(trainable, precision):
    settings = {"model": "small_models:penalized", "optimizer": "sgd", "learning_rate": 0.05}
    made = trainable(2, precision=precision, **settings)
    losses = made.train(30).loss
    assert losses[-5:].mean() < losses[:5].mean()
    mean = next(variable for variable in made.state.buffers if variable.dtype == "float16")
    assert mean.numpy() > 0.1
    plain = trainable(2, **settings).train(30).loss
    assert relative(losses, plain) < 0.02


def test_a_sudden_change_of_range_brings_the_loss_scale_down_and_ends_no_healthy_run(trainable):
    made = trainable(2, precision="float16", optimizer="sgd", learning_rate=1e-9, model="small_models:smooth")
    made.state.loss_scale.assign(2.0**24)  # where long peace brings it
    call_model_by(made, lambda model, images, step: model(images, training=True) * tf.where(step < 2.5, 1.0, 2.0**16))
    records = made.train(40)
    assert records.finite[-1] and np.isfinite(records.loss).all()
    progress = RunMetrics()
    monitor = LossMonitor(Config(max_bad_steps=4, spike_factor=0.0), "float16", lambda step: [step])
    list(progress.update(records, 0, made.plan, monitor))
    found = monitor.pop_events()
    assert max(event["in_row"] for event in found) > 4
    for event in found:
        monitor.raise_if_diverged(event)


def test_a_float16_run_without_a_way_out_still_ends(trainable):
    made = trainable(1, precision="float16", optimizer="sgd", learning_rate=1e-9, model="small_models:smooth")
    made.state.loss_scale.assign(4.0)
    call_model_by(made, lambda model, images, step: model(images, training=True) * 2.0**60)
    records = made.train(10)
    assert not records.finite.any()
    progress, monitor = RunMetrics(), LossMonitor(Config(max_bad_steps=4), "float16", lambda step: [step])
    list(progress.update(records, 0, made.plan, monitor))
    with pytest.raises(DivergedError, match="6 steps in a row"):  # two of them halved the scale to 1
        for event in monitor.pop_events():
            monitor.raise_if_diverged(event)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_a_checksum_tells_a_replica_whose_weights_are_others(trainable, replicas):
    made = trainable(replicas, model="small_models:penalized", optimizer="adam")
    made.train(3)
    before = made.state.checksums()
    assert len(before) == replicas and len(set(before)) == 1
    collectives.require_equal_states(made.runtime, made.state)
    copies = made.runtime.strategy.experimental_local_results(made.state.model.trainable_variables[0].value)
    value = copies[-1].numpy()
    value.flat[5] = np.nextafter(value.flat[5], np.inf)  # one bit
    copies[-1].assign(value)
    after = made.state.checksums()
    assert after[:-1] == before[:-1] and after[-1] != before[-1]
    if replicas > 2:
        with pytest.raises(DeviceError, match="the weights of replica 3 are not those of the rest"):
            collectives.require_equal_states(made.runtime, made.state)


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, long(True)])
def test_gradients_that_travel_in_8_bits_learn_as_well(trainable, xla):
    """On one replica nothing travels; on several all have the same weights, and counts stay exact."""
    settings = {"model": "small_models:normalized", "optimizer": "sgd", "learning_rate": 0.05, "batch_size": 120,
                "xla": xla}
    wide, narrow = (trainable(4, all_reduce=each, **settings) for each in ("float32", "bfloat16"))
    wanted, found = wide.train(20), narrow.train(20)
    assert relative(wanted.loss[:1], found.loss[:1]) == 0 < relative(wanted.loss[:5], found.loss[:5]) < 0.02
    assert found.loss[-5:].mean() < 1.1 * wanted.loss[-5:].mean() < 0.6 * wanted.loss[0]
    assert np.all(found.examples == 120) and np.array_equal(found.correct, np.round(found.correct))
    for variable in narrow.state.model.variables:
        first, *others = (copy.numpy() for copy in narrow.runtime.strategy.experimental_local_results(variable.value))
        for other in others:
            np.testing.assert_array_equal(first, other)
    one, same = (trainable(1, all_reduce=each, **settings).train(5) for each in ("float32", "bfloat16"))
    np.testing.assert_array_equal(one.loss, same.loss)


@pytest.mark.slow
@pytest.mark.parametrize("replicas, more", [(2, {"clip_norm": 0.05}), (1, {"precision": "float16"})])
def test_the_norm_of_the_gradients_is_that_before_clipping(trainable, replicas, more):
    """Against the update of SGD without momentum, whose length is rate times norm; asked for, it changes nothing."""
    settings = {"model": "small_models:smooth", "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0}
    plain, asked = (trainable(replicas, log_gradient_norm=log, **{**settings, **more, "clip_norm": 0.0})
                    for log in (False, True))
    before = asked.weights()
    first, same = asked.train(1), plain.train(1)
    assert same.gradient_norm is None
    np.testing.assert_allclose(first.loss, same.loss, rtol=1e-6)
    length = np.sqrt(sum(np.sum((a - b) ** 2.0) for a, b in zip(before, asked.weights(), strict=True)))
    assert first.gradient_norm[0] == pytest.approx(length / 0.1, rel=1e-3)
    clipped = trainable(replicas, **{**settings, "clip_norm": 0.05}).train(1)
    if "precision" not in more:
        assert clipped.gradient_norm[0] == pytest.approx(first.gradient_norm[0], rel=1e-5)


class SlowSplit(ArraySplit):
    """Images in memory whose pipeline takes 50 ms for each batch."""

    def read(self, *arguments, **options):
        def wait(batch):
            with tf.control_dependencies([tf.numpy_function(lambda: time.sleep(0.05), [], [])]):
                return batch._replace(ids=tf.identity(batch.ids))

        return super().read(*arguments, **options).map(tf.autograph.experimental.do_not_convert(wait))


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_steps_know_how_long_they_waited_for_their_batches(small, replicas):
    train = SlowSplit(small.train.images, small.train.labels)
    settings = {"model": "small_models:smooth", "optimizer": "sgd", "learning_rate": 0.05}
    slow, usual = (Trainable(data, replicas, **settings) for data in (
        dataclasses.replace(small, train=train), small))
    for made in (slow, usual):
        made.train(1)  # the first call traces
    began = time.perf_counter()
    waited, theirs = slow.train(20), usual.train(20)
    assert 0.3 < waited.input_wait.sum() < time.perf_counter() - began
    assert waited.input_wait.shape == (20,) and (waited.input_wait >= 0).all()
    np.testing.assert_array_equal(waited.loss, theirs.loss)
    resident = Trainable(small, replicas, input="device", **settings)
    assert resident.train(1).input_wait is None
