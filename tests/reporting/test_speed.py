"""How long a step takes, where its time goes, and why it is slow."""

import dataclasses
import sys
import types

import keras
import numpy as np
import pytest
from event_files import scalars, values
from keras import layers

from trainer.config import Config
from trainer.device_kind import CPU, GPU
from trainer.distributed.devices import machine
from trainer.distributed.devices.peaks import peak_flops
from trainer.models.multiply_adds import multiply_adds
from trainer.reporting.board.gpu_meter import GpuMeter
from trainer.reporting.board.speed import Speedometer
from trainer.reporting.tensorboard import TensorBoardWriter
from trainer.train.inner_loop import CallReport
from trainer.train.timing.step_times import Seconds, StepTimes

NOTHING = {"all_reduce_share": 0.0, "waiting_share": 0.0}


def call(seconds, images_per_second=800.0, stalled=0.0):
    return CallReport(10, 1.0, [], [], None, images_per_second, seconds, stalled, None)


def job(physical, precision="bfloat16", kind=GPU, workers=1, train_sizes=(), freeze=""):
    runtime = types.SimpleNamespace(physical=physical, precision=precision, kind=kind, workers=workers,
                                    replicas=len(physical) * workers)
    return types.SimpleNamespace(runtime=runtime, config=Config(freeze=freeze),
                                 plan=types.SimpleNamespace(train_sizes=train_sizes))


@pytest.fixture(scope="module")
def model():
    pixels = keras.Input((10, 10, 3))
    inner = keras.Sequential([keras.Input((8, 8, 5)), layers.DepthwiseConv2D(3), layers.ReLU()])
    x = layers.Flatten()(inner(layers.Conv2D(5, 3)(layers.Rescaling(1 / 255)(pixels))))
    return keras.Model(pixels, layers.Dense(7)(x))


def test_the_parts_of_a_call_are_its_time():
    times = StepTimes()
    times._saving = 0.5
    seconds = times.add(20, 3.0, 2.0, {"all_reduce_share": 0.25, "waiting_share": 0.1})
    assert seconds == Seconds(device=pytest.approx(1.3), all_reduce=0.5, waiting=0.2, host=0.5, saving=0.5, steps=20)
    assert seconds.total == pytest.approx(3.0)
    assert times.add(20, 2.5, 2.0, {}) == Seconds(device=2.0, host=0.5, steps=20)  # a save counts once
    assert times.add(20, 2.5, 2.0, {}, 1.5) == Seconds(device=0.5, input=1.5, host=0.5, steps=20)


def test_an_epoch_that_waited_for_images_is_told_with_what_to_try():
    for dataset, advice in (("folder", "trainer prepare"), ("shapes", "more cores")):
        times = StepTimes()
        times.add(100, 20.0, 19.0, {}, 8.0)
        said = times.end_epoch(3, Config(dataset=dataset, data_dir="x"))
        assert said.startswith("epoch 3: 40% of a step, 80 of 200 ms, went to waiting for images; try ")
        assert advice in said


def test_saves_are_timed_and_those_before_an_evaluation_are_no_part_of_the_next_call():
    times = StepTimes()
    with times.saving():
        pass
    times.skip()
    assert times.add(1, 1.0, 1.0, {}).saving == 0 and times.pop_stalled() > 0 and times.pop_stalled() == 0


@pytest.mark.parametrize("spent, more, cause, advice", [
    ({"host": 0.2}, {"ledger": True}, "the host's work between calls", "--noledger"),
    ({"host": 0.2}, {"log_every_steps": 5}, "the host's work between calls", "--log_every_steps=50"),
    ({"host": 0.2}, {}, "the host's work between calls", "a larger --batch_size, which is another run"),
    ({"saving": 0.2, "host": 0.15}, {"checkpoint_every_steps": 20}, "waiting for checkpoints",
     "--checkpoint_every_steps=200"),
    ({"saving": 0.2}, {"checkpoint_every_minutes": 0.1}, "waiting for checkpoints", "--checkpoint_every_minutes=10"),
    ({"all_reduce": 0.2, "waiting": 0.11}, {}, "gradients on their way", "--all_reduce=bfloat16"),
    ({"all_reduce": 0.2}, {"all_reduce": "bfloat16"}, "gradients on their way", "a larger --batch_size or --acc"),
    ({"waiting": 0.2}, {}, "waiting for the slowest worker", "python -m trainer bench on each machine")])
def test_a_slow_epoch_is_told_with_what_to_try(spent, more, cause, advice):
    times = StepTimes()
    in_call = 1 - spent.get("host", 0.0) - spent.get("saving", 0.0)
    shares = {f"{name}_share": spent.get(name, 0.0) / in_call for name in ("all_reduce", "waiting")}
    times._saving = 20 * spent.get("saving", 0.0)
    times.add(1000, 20.0, 20.0 * in_call, shares)
    line = times.end_epoch(3, Config(**more))
    assert line.startswith(f"epoch 3: 20% of a step, 4 of 20 ms, went to {cause}")
    assert f"; try {advice}" in line


def test_nothing_is_said_of_a_tenth_or_of_a_few_seconds_and_the_same_not_twice():
    times, config = StepTimes(), Config()
    times.add(10, 20.0, 18.1, NOTHING)
    assert times.end_epoch(1, config) is None
    times.add(10, 9.0, 1.0, NOTHING)
    assert times.end_epoch(2, config) is None  # nine seconds: goes on in the next
    times.add(10, 9.0, 1.0, NOTHING)
    assert times.end_epoch(3, config).startswith("epoch 3: 89% of a step, 800 of 900 ms")
    times.add(10, 20.0, 2.0, NOTHING)
    assert times.end_epoch(4, config) is None  # as before
    times.add(10, 20.0, 20.0, NOTHING)
    assert times.end_epoch(5, config) is None
    times.add(10, 20.0, 2.0, NOTHING)
    assert times.end_epoch(6, config).startswith("epoch 6: 90%")  # again


def test_multiply_adds_are_counted_also_in_models_inside(model):
    assert multiply_adds(model) == 8 * 8 * 5 * 27 + 6 * 6 * 5 * 9 + 6 * 6 * 5 * 7


@pytest.mark.parametrize("name, precision, peak", [
    ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12), ("NVIDIA H100 PCIe", "float16", 756e12),
    ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12), ("NVIDIA A10G", "bfloat16", 70e12),
    ("NVIDIA L40S", "float16", 362e12),
    ("Tesla T4", "float16", 65e12), ("NVIDIA RTX A1000", "bfloat16", None), ("CPU", "bfloat16", None),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", None), ("NVIDIA A100-SXM4-80GB", "float32", None)])
def test_peaks_are_of_the_gpus_that_are_known(name, precision, peak):
    assert peak_flops(name, precision) == peak


def test_the_share_of_the_peak(model):
    a100 = "NVIDIA A100-SXM4-80GB"
    half = 0.5 * 312e12 * 4 / (6 * multiply_adds(model))  # images/s of two workers with two GPUs at half of the peak
    seconds = Seconds(device=0.9, host=0.1, saving=3.0, steps=100)
    figures = Speedometer(job((a100, a100), workers=2), model).figures(call(seconds, half, stalled=3.0))
    assert figures == {"speed/mfu": pytest.approx(0.5), "speed/step_ms": pytest.approx(10),
                       "speed/compute_share": pytest.approx(0.9), "speed/host_share": pytest.approx(0.1),
                       "speed/images_per_second_per_replica": half / 4, "health/checkpoint_stall_seconds": 3.0}
    for other in (job((a100,), "float32"), job(("CPU",), kind=CPU), job((a100,), train_sizes=((0, 8),)),
                  job((a100,), freeze="conv.*")):
        assert "speed/mfu" not in Speedometer(other, model).figures(call(seconds))
    strange = types.SimpleNamespace(layers=[types.SimpleNamespace()])
    assert "speed/mfu" not in Speedometer(job((a100,)), strange).figures(call(seconds))


def test_on_cpus_the_share_of_input_is_known(model):
    seconds = Seconds(device=0.6, input=0.3, host=0.1, steps=10)
    figures = Speedometer(job(("CPU",), kind=CPU), model).figures(call(seconds))
    assert figures["speed/input_share"] == pytest.approx(0.3) and figures["speed/compute_share"] == pytest.approx(0.6)


def test_a_call_that_compiled_has_no_speed(model):
    figures = Speedometer(job(("CPU",), kind=CPU), model).figures(call(None, None, stalled=0.25))
    assert figures == {"health/checkpoint_stall_seconds": 0.25}


class Refused(Exception):
    """As the library's errors are: a class of its own."""


def library(**more):
    """A stand-in for NVIDIA's module, of two GPUs; more functions, or other ones."""
    def memory(gpu):
        return types.SimpleNamespace(used={"a": 2e9, "b": 5e9}[gpu])

    module = types.ModuleType("pynvml")
    module.__dict__.update({
        "nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": lambda uuid: uuid, "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetUtilizationRates": lambda gpu: types.SimpleNamespace(gpu={"a": 50, "b": 100}[gpu]),
        "nvmlDeviceGetPowerUsage": lambda gpu: {"a": 300_000, "b": 400_500}[gpu], **more})
    return module


def refuse(*_):
    raise Refused


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda visible: [machine.Gpu("0", uuid, "A100", 1, "1") for uuid in "ab"])


@pytest.mark.parametrize("module, count, found", [
    (library(), 2, {"gpu_memory_gb": 5.0, "gpu_use": 0.75, "gpu_watts": 700.5}),
    (library(), 1, {"gpu_memory_gb": 2.0, "gpu_use": 0.5, "gpu_watts": 300.0}),
    (library(), 0, {}),
    (library(nvmlDeviceGetUtilizationRates=refuse), 2, {"gpu_memory_gb": 5.0, "gpu_watts": 700.5}),  # MIG
    (library(nvmlInit=refuse), 2, {}), (library(nvmlDeviceGetHandleByUUID=refuse), 2, {}),
    (None, 2, {})])  # the module isn't installed
def test_what_the_gpus_tell_is_read_and_the_rest_is_absent(monkeypatch, two_gpus, module, count, found):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    meter = GpuMeter(count)
    assert meter.read() == meter.read() == found


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_norm_of_the_weights_is_that_of_all_weights_that_train(trainable, monkeypatch, replicas):
    from trainer.train import state

    made = trainable(replicas, model="small_models:frozen")
    weights = [np.asarray(variable).ravel() for variable in made.state.model.trainable_weights]
    assert len(weights) == 4  # of the head and the batch norm behind the frozen backbone
    expected = np.linalg.norm(np.concatenate(weights).astype(np.float64))
    assert made.state.weights_norm() == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(state, "_VALUES_AT_ONCE", 7)
    assert made.state.weights_norm() == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_calls_are_measured_and_a_slow_epoch_is_told(trainable, tmp_path, monkeypatch):
    from trainer.errors import FirstFailure
    from trainer.train.inner_loop import InnerLoop
    from trainer.train.metrics import RunMetrics
    from trainer.train.timing import step_times

    made = trainable(1, model="small_models:compact", batch_size=40)
    inner_loop = InnerLoop(made.job, made.state, RunMetrics(), step=0, failures=FirstFailure())
    inner_loop.compile()
    assert inner_loop.run(1).seconds is None
    with inner_loop.times.saving():
        step_times.time.sleep(0.2)
    report = inner_loop.run(4)
    assert report.seconds.steps == 4 and report.seconds.saving >= 0.2 <= report.stalled
    assert 0 < report.seconds.total < 60 and report.seconds.device > 0 and report.seconds.host < 0.2
    assert report.slow is None  # the epoch has six steps
    monkeypatch.setattr(step_times, "_ENOUGH_SECONDS", 0.0)
    assert "went to waiting for checkpoints; try --checkpoint_every_minutes=10" in inner_loop.run(1).slow
    events = TensorBoardWriter(tmp_path, {})
    events.write("train", 5, Speedometer(made.job, made.state.model).figures(report))
    events.close()
    assert scalars(tmp_path, "train", "speed/step_ms") == scalars(tmp_path, "train", "speed/host_share") == [5]
    ((_, stalled),) = values(tmp_path, "train", "health/checkpoint_stall_seconds")
    assert stalled == pytest.approx(report.stalled)


def test_the_line_is_said_by_the_reporter(tmp_path):
    from trainer.reporting.reporter import Reporter
    from trainer.storage.model_dir import ModelDir

    said = []
    console = types.SimpleNamespace(say=said.append, progress=lambda *_, **__: None)
    reporter = Reporter(ModelDir(tmp_path), console, valid=None, first_step=0, total_steps=99, ledger=False,
                        evaluated=None, evaluated_name="test", speed=Speedometer(job(("CPU",), kind=CPU), None))
    reporter.begin(dataclasses.replace(call(Seconds(device=1.0, steps=10)), slow="slow because"))
    reporter.wait()
    reporter.flush()
    assert said == ["slow because"] and scalars(tmp_path / "tensorboard", "train", "speed/step_ms") == [10]
    reporter.close()
