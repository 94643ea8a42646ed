"""Everything that only a GPU can show: `make test-gpu`. Each test is processes of its own; an abort costs one of them.

Tests that need two GPUs skip with that reason where there is one. `LOCKSTEP_GPU_LIKE=1` runs the same tests on
logical CPU devices that are used as GPUs are, which shows that the tests work, and nothing of a GPU.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, environment
from gpu_like import ENVIRONMENT
from runs import assert_equal_runs, finish, ledger, reported, start, state
from test_train import wait_for_step

from trainer.distributed.devices import machine

LIKE = os.environ.get("LOCKSTEP_GPU_LIKE") == "1"
GPUS = 2 if LIKE else len(machine.gpus(os.environ.get("CUDA_VISIBLE_DEVICES")))
MORE = ENVIRONMENT if LIKE else {"CUDA_VISIBLE_DEVICES": os.environ.get(
    "CUDA_VISIBLE_DEVICES", ",".join(map(str, range(GPUS))))}
FLAGS = ("--dataset=shapes", "--batch_size=64", "--optimizer=sgd", "--learning_rate=0.01", "--max_steps=60",
         "--eval_every_epochs=0.1", "--log_every_steps=5", "--checkpoint_every_steps=20", "--export=none", "--ledger",
         "--augment=flip,crop")
two_gpus = pytest.mark.skipif(GPUS < 2, reason="needs two GPUs")


@pytest.fixture(autouse=True, scope="session")
def a_gpu():
    if not GPUS:
        pytest.fail("nvidia-smi lists no GPU that is visible; these tests are of GPUs")


def on(count):
    """The flags for so many GPUs."""
    return ("--num_gpus=0", f"--virtual_devices={count if count > 1 else 0}") if LIKE else (f"--num_gpus={count}",)


def gpu_run(folder, *flags, count=1, code=0):
    folder.mkdir(exist_ok=True)
    return finish(start(folder, *FLAGS, *on(count), *flags, **MORE), code)


def cpu_run(folder, *flags, count=1):
    folder.mkdir(exist_ok=True)
    return finish(start(folder, *FLAGS, "--num_gpus=0", f"--virtual_devices={count if count > 1 else 0}", *flags), 0)


def losses(folder):
    return np.array([line["loss"] for line in reported(folder) if line["split"] == "train"])


def command(folder, *words, **more):
    return subprocess.run([sys.executable, "-m", "trainer", *words], cwd=folder, text=True, capture_output=True,
                          env=environment(**{**MORE, **more}), timeout=1800)


def test_the_machine(tmp_path):
    """Driver, compiler, cuDNN; a convolution and its gradient in each precision with XLA; an all-reduce."""
    done = command(tmp_path, "doctor")
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "with XLA in float32, bfloat16, float16: right" in done.stdout
    assert LIKE or ("compute capability" in done.stdout and "cuDNN" in done.stdout)


STEP = """
import sys
from trainer.process.tf_import import tf
import conftest
from trainer.distributed.cluster import Cluster
from trainer.config import Config
from trainer.distributed import runtime
from trainer.data.sources import shapes
config = Config(**{"num_gpus": 0 if %r else 1, "dataset": "shapes"})
started = runtime.start(config, Cluster())
conftest.make_runtime = lambda *_: started
tf.config.set_soft_device_placement(False)
small = shapes.render_dataset(0, train=240, test=50)
for settings in ({}, {"ledger": True, "clip_norm": 1.0, "augment": ("flip", "crop", "cutout", "randaugment", "mixup"),
                      "class_weights": "balanced", "label_smoothing": 0.1, "model": "small_models:regularized"}):
    for where in ("host", "auto"):
        records = conftest.Trainable(small, 1, xla=True, kind=started.kind, input=where, **settings).train(3)
        print(records.loss)
"""


def test_no_op_of_a_step_leaves_the_gpu(tmp_path):
    """Without soft placement an op that has no GPU kernel is an error."""
    done = subprocess.run([sys.executable, "-c", STEP % LIKE], text=True, capture_output=True, timeout=600, cwd=ROOT,
                          env=environment(**MORE))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("model", ["cnn3", "cnn2", "resnet20", "resnet18", "small_models:regularized"])
def test_a_model_computes_what_it_computes_on_a_cpu(tmp_path, model):
    flags = (f"--model={model}", "--learning_rate=0.001", "--precision=float32", "--tf32=off", "--max_steps=20",
             "--xla=on")
    gpu_run(tmp_path / "gpu", *flags)
    cpu_run(tmp_path / "cpu", *flags)
    assert ledger(tmp_path / "gpu") == ledger(tmp_path / "cpu")
    np.testing.assert_allclose(losses(tmp_path / "gpu"), losses(tmp_path / "cpu"), rtol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_learn_as_well(tmp_path, precision):
    flags = ("--model=cnn3", "--max_steps=300", "--optimizer=adam", "--learning_rate=0.001",
             "--export=h5,keras,saved_model")
    gpu_run(tmp_path / "gpu", *flags, f"--precision={precision}")
    result = json.loads((tmp_path / "gpu/run/result.json").read_text())
    assert losses(tmp_path / "gpu")[-5:].mean() < 0.7 * losses(tmp_path / "gpu")[:5].mean()
    for export in result["exports"].values():
        assert abs(export["accuracy"] - result["eval_accuracy"]) < 0.005


def test_every_feed_has_the_examples_of_the_cpu(tmp_path):
    for where in ("host", "device"):
        gpu_run(tmp_path / where, f"--input={where}", "--model=small_models:smooth", "--precision=float32",
                "--tf32=off")
    cpu_run(tmp_path / "cpu", "--model=small_models:smooth")
    assert ledger(tmp_path / "host") == ledger(tmp_path / "device") == ledger(tmp_path / "cpu")
    np.testing.assert_allclose(losses(tmp_path / "host"), losses(tmp_path / "device"), rtol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_killed_run_goes_on(tmp_path, number, deterministic):
    """With --deterministic to the last bit; without it with the same examples and about the same losses."""
    flags = ("--model=cnn3", *(("--deterministic",) if deterministic else ()))
    gpu_run(tmp_path / "through", *flags)
    killed = tmp_path / "killed"
    killed.mkdir()
    process = start(killed, *FLAGS, *on(1), *flags, **MORE)
    wait_for_step(process, killed, 25)
    process.send_signal(number)
    process.communicate()
    gpu_run(killed, *flags)
    assert ledger(killed) == ledger(tmp_path / "through")
    np.testing.assert_allclose(losses(killed), losses(tmp_path / "through"), rtol=1e-2)
    if deterministic:
        assert_equal_runs(killed, tmp_path / "through")


def test_a_deterministic_run_repeats(tmp_path):
    for name in ("one", "again"):
        gpu_run(tmp_path / name, "--deterministic", "--model=resnet20", "--max_steps=30")
    assert_equal_runs(tmp_path / "one", tmp_path / "again")


@two_gpus
def test_two_gpus_have_the_losses_of_one(tmp_path):
    """Each save also compares a checksum of both GPUs' weights."""
    flags = ("--model=cnn3", "--precision=float32", "--tf32=off", "--learning_rate=0.001", "--max_steps=300")
    for count in (1, 2):
        gpu_run(tmp_path / str(count), *flags, count=count)
    assert ledger(tmp_path / "1") == ledger(tmp_path / "2")
    np.testing.assert_allclose(losses(tmp_path / "1"), losses(tmp_path / "2"), rtol=1e-3)


@two_gpus
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_falls_ends_the_other_in_time(tmp_path, number):
    words = ("launch.local", "--num_workers=2", "--max_restarts=0", "--", *FLAGS, "--model=cnn3", "--max_steps=100000",
             "--model_dir=run", *(("--num_gpus=0",) if LIKE else ()))
    launcher = subprocess.Popen([sys.executable, "-m", *words], cwd=tmp_path, text=True, env=environment(**MORE),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_step(launcher, tmp_path, 20)
    found = subprocess.run(["pgrep", "-f", "trainer.main.*--model_dir=run"], capture_output=True, text=True).stdout
    os.kill(int(found.split()[-1]), number)
    began = time.monotonic()
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 70 and time.monotonic() - began < 60, err


def test_a_batch_that_does_not_fit_is_told(tmp_path):
    """64 with a sentence; and nothing of it is left on the GPU for the next run."""
    if LIKE:
        pytest.skip("a CPU's memory has no end that TensorFlow raises at")
    _, err = gpu_run(tmp_path / "large", "--model=resnet50", "--batch_size=12000", "--input=host",
                     "--precision=float32", "--max_steps=2", code=64)
    assert "out of memory" in err and "--batch_size" in err
    gpu_run(tmp_path / "next", "--max_steps=5")


def test_a_start_takes_no_more_than_minutes(tmp_path):
    """Cold, with an empty cache of kernels, and warm."""
    seconds = {}
    for name in ("cold", "warm"):
        began = time.monotonic()
        process = start(tmp_path, *FLAGS, *on(1), "--model=cnn3", f"--max_steps={20 if name == 'cold' else 40}",
                        **MORE, CUDA_CACHE_PATH=str(tmp_path / "cache"))
        finish(process, 0)
        seconds[name] = time.monotonic() - began
    print(seconds)
    assert seconds["cold"] < 300 and seconds["warm"] < 120


def test_commands_on_a_run(tmp_path):
    gpu_run(tmp_path, "--model=resnet20", "--export=h5,saved_model")
    result = json.loads((tmp_path / "run/result.json").read_text())
    done = command(tmp_path, "evaluate", "--model_dir=run", "--json")
    assert abs(json.loads(done.stdout)["eval_accuracy"] - result["eval_accuracy"]) < 0.002, done.stderr
    assert command(tmp_path, "export", "--model_dir=run", "--export=keras").returncode == 0
    name, _ = state(tmp_path)
    manifest = json.loads((tmp_path / "run/checkpoints" / name / "manifest.json").read_text())
    assert LIKE or {"devices", "driver", "CUDA of the driver", "cuDNN"} <= set(manifest["computed_on"])


def test_speed(tmp_path):
    """Printed for RESULTS.md; the floor finds a run that is on a CPU, or one that waits for the host all the time."""
    done = command(tmp_path, "bench", "--dataset=shapes", "--replicas=1", "--seconds=2", "--json",
                   *(("--num_gpus=0",) if LIKE else ()))
    row = json.loads(done.stdout.strip().splitlines()[-1])
    print({name: value for name, value in row.items() if re.search("per_second|devices|step_ms", name)})
    assert row["real_images_per_second"] > (500 if LIKE else 30_000), done.stderr
