"""Checks of the step itself, in the check's own process."""

import dataclasses
import os
import threading
import time
from pathlib import Path

import numpy as np


def _started(box, count=1, **settings):
    """The runtime of so many devices."""
    from trainer.config import Config
    from trainer.distributed import runtime
    from trainer.distributed.cluster import Cluster

    devices = ({"num_gpus": 0, "virtual_devices": count if count > 1 else 0} if box.like else
               {"num_gpus": count, **settings})
    return runtime.start(Config(dataset="shapes", **devices), Cluster())


def _small():
    from trainer.data.sources import shapes

    return shapes.render_dataset(0, train=960, test=50)


def _trained(data, runtime, steps, **settings):
    """The records of some steps on a runtime, and the loop that did them."""
    import conftest

    real, conftest.make_runtime = conftest.make_runtime, lambda *_: runtime
    try:
        made = conftest.Trainable(data, runtime.replicas, **{"batch_size": 48, "optimizer": "sgd",
                                                             "learning_rate": 0.001, **settings})
    finally:
        conftest.make_runtime = real
    return made.train(steps), made


def ops(box):
    """Without soft placement an op that has no kernel on the device is an error: all feeds, all augmentations."""
    from trainer.process.tf_import import tf

    started = _started(box)
    tf.config.set_soft_device_placement(False)
    settings = ({}, {"ledger": True, "clip_norm": 1.0, "class_weights": "balanced", "label_smoothing": 0.1,
                     "augment": ("flip", "crop", *box.pick(("cutout", "randaugment", "mixup"), ())),
                     "model": "small_models:regularized"})
    data = _small()
    for more in settings:
        for where in box.pick(("host", "auto"), ("auto",) if more else ("host",)):
            _trained(data, dataclasses.replace(started, xla=True), 3, input=where, **more)
    return "no op of a step leaves the device", {}


def losses(box):
    """Ids and the first 20 losses in each precision, with XLA and without, beside the CPU's in float32."""
    import conftest

    from trainer.process.tf_import import tf

    started, data, figures = _started(box), _small(), {}
    cpu = conftest.make_runtime(1)
    models = box.pick([("cnn3", precisions, xlas) for precisions, xlas in [
        (("float32", "float32 with TF32", "bfloat16", "float16"), (True, False))]] + [
        ("resnet20", ("float32", "bfloat16"), (True,)), ("resnet50", ("bfloat16",), (True,))],
        [("small_models:smooth", ("float32", "float16"), (True,)), ("small_models:smooth", ("float32",), (False,)),
         ("small_models:normalized", ("bfloat16",), (True,))])
    for model, precisions, xlas in models:
        for xla in xlas:
            settings = {"model": model, "ledger": True, "batch_size": 48}
            tf.config.experimental.enable_tensor_float_32_execution(False)
            wanted, _ = _trained(data, dataclasses.replace(cpu, xla=xla), 20, **settings)
            for precision in precisions:
                tf.config.experimental.enable_tensor_float_32_execution("TF32" in precision)
                runtime = dataclasses.replace(started, xla=xla, precision=precision.split()[0])
                found, _ = _trained(data, runtime, 20, **settings)
                np.testing.assert_array_equal(found.ids, wanted.ids)
                error = float(np.max(np.abs(found.loss / wanted.loss - 1)))
                figures[f"{model}, {precision}, XLA {'on' if xla else 'off'}"] = error
                limit = 1e-4 if precision == "float32" else 2e-2
                assert error < limit, f"{model}, {precision}, XLA {xla}: losses differ by {error:.1e} (≥ {limit:.0e})"
    worst = max(figures.values())
    return f"ids equal; losses within {worst:.0e} in {len(figures)} settings", figures


def two_logical_devices(box):
    """Two replicas on one physical device: their ids are one device's, and their losses nearly."""
    from trainer.distributed import runtime

    started, data = _started(box, 2) if box.like else _started(box, virtual_devices=2), _small()
    alone = dataclasses.replace(started, devices=started.devices[:1], replicas=1, strategy=runtime.one_process_strategy(
        started.devices[:1], started.kind, True))
    settings = {"model": box.pick("cnn3", "small_models:smooth"), "ledger": True}
    pair, one = (_trained(data, dataclasses.replace(each, xla=True), 20, **settings)[0] for each in (started, alone))
    np.testing.assert_array_equal(pair.ids, one.ids)
    error = float(np.max(np.abs(pair.loss / one.loss - 1)))
    assert error < 2e-2
    return f"ids equal; losses within {error:.0e} of one replica's", {"difference": error}


def flat(box):
    """Threads, resident memory and the device's memory, after 500 steps and after 3,000."""
    from trainer.process.tf_import import tf

    started, data = _started(box), _small()
    model = box.pick("cnn3", "benchmarks.models:tiny")
    _, made = _trained(data, dataclasses.replace(started, xla=True), 100, model=model, batch_size=16)

    def used():
        status = Path("/proc/self/status").read_text()
        memory = int(status.split("VmRSS:")[1].split()[0]) / 1024
        device = 0 if box.like else tf.config.experimental.get_memory_info("GPU:0")["current"] / 2**20
        return len(os.listdir("/proc/self/task")), memory, device, threading.active_count()

    rows, done = [], 100
    for wanted in (500, 3000):
        while done < wanted:
            made.train(100)
            done += 100
        rows.append(used())
    (threads, memory, device, _), (threads_later, memory_later, device_later, _) = rows
    assert threads_later <= threads + 2, f"{threads} threads at step 500, {threads_later} at step 3,000"
    assert memory_later < memory + 64, f"{memory:.0f} MiB resident at step 500, {memory_later:.0f} at step 3,000"
    assert device_later <= device + 16, f"{device:.0f} MiB on the device at step 500, {device_later:.0f} at 3,000"
    return (f"{threads_later} threads, {memory_later:,.0f} MiB ({memory_later - memory:+.0f} since step 500)",
            {"threads": threads_later, "resident_mib": round(memory_later), "device_mib": round(device_later)})


def profile(box):
    """A profile of 100 steps: how much of the time the device computes, its gaps, and what is copied to it."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    from trainer.process.tf_import import tf

    started, data = _started(box), _small()
    model = box.pick("resnet20", "small_models:smooth")
    _, made = _trained(data, dataclasses.replace(started, xla=True), 20, model=model, batch_size=box.pick(128, 16),
                       precision="float32")
    began = time.perf_counter()
    with tf.profiler.experimental.Profile(str(box.folder)):
        made.train(100)
    seconds = time.perf_counter() - began
    (path,) = box.folder.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    events = []
    for plane in space.planes:
        if plane.name.startswith("/device:GPU") or (box.like and plane.name == "/host:CPU"):
            for line in plane.lines:
                events += [(line.timestamp_ns * 1000 + event.offset_ps, event.duration_ps,
                            plane.event_metadata[event.metadata_id].name) for event in line.events]
    assert events, f"the profile holds no event of the device; planes: {[plane.name for plane in space.planes]}"
    busy, gaps, end = 0, [], None
    for start, duration, _ in sorted(events):
        if end is None or start >= end:
            gaps += [] if end is None else [start - end]
            busy, end = busy + duration, start + duration
        elif start + duration > end:
            busy, end = busy + start + duration - end, start + duration
    copies = [name for _, _, name in events if "memcpyh2d" in name.lower()]
    pageable = sum("pageable" in name.lower() for name in copies)
    share = busy / (busy + sum(gaps))
    figures = {"steps_per_second": round(100 / seconds, 1), "busy": round(share, 3), "events": len(events),
               "longest_gap_us": round(max(gaps, default=0) / 1e6, 1), "copies_to_the_device_per_step":
               len(copies) / 100, "pageable": pageable}
    return (f"the device computes {share:.0%} of the time; longest gap {figures['longest_gap_us']:,.0f} µs; "
            f"{len(copies) / 100:g} copies to it a step, {pageable} of all from pageable memory"), figures
