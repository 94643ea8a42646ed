"""Whole commands with logical CPU devices used as GPUs are: XLA, prefetch to the device, resident images, collectives.

Nothing here is a GPU's arithmetic; it is every line of Python and every graph that a GPU box would run.
"""

import json
import signal
import subprocess
import sys

import pytest
from conftest import environment
from gpu_like import ENVIRONMENT
from runs import assert_equal_runs, finish, ledger, reported, start
from test_train import wait_for_step

FLAGS = ("--dataset=shapes", "--model=small_models:regularized", "--batch_size=16", "--max_steps=30", "--optimizer=sgd",
         "--learning_rate=0.02", "--augment=flip,crop", "--eval_every_epochs=0.02", "--log_every_steps=4",
         "--checkpoint_every_steps=9", "--num_gpus=0", "--export=none", "--ledger")


def gpu_run(folder, *more, code=0):
    return finish(start(folder, *FLAGS, *more, **ENVIRONMENT), code)


@pytest.mark.parametrize("more", [("--precision=float16", "--clip_norm=1"),
                                  ("--virtual_devices=2", "--input=host", "--xla=off")])
def test_a_run_killed_and_resumed_equals_one_that_was_not(tmp_path, more):
    through, killed = tmp_path / "through", tmp_path / "killed"
    for folder in (through, killed):
        folder.mkdir()
    out, _ = gpu_run(through, *more)
    assert ("XLA off" if "--xla=off" in more else "XLA on") in out
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = start(killed, *FLAGS, *more, **ENVIRONMENT)
        wait_for_step(process, killed, 8)
        process.send_signal(number)
        process.communicate()
    out, _ = gpu_run(killed, *more)
    assert "resuming from step" in out or "30 steps" in out
    assert_equal_runs(killed, through)


def test_it_has_the_ids_and_nearly_the_losses_of_the_cpu(tmp_path):
    flags = ("--model=small_models:smooth", "--learning_rate=0.001", "--virtual_devices=2")
    for name, more in (("gpu", ENVIRONMENT), ("cpu", {})):
        (tmp_path / name).mkdir()
        finish(start(tmp_path / name, *FLAGS, *flags, **more), 0)
    assert ledger(tmp_path / "gpu") == ledger(tmp_path / "cpu")
    for ours, theirs in zip(*(reported(tmp_path / name) for name in ("gpu", "cpu")), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_the_commands_on_what_it_left(tmp_path, run):
    flags = ("--model=cnn3", "--virtual_devices=2", "--precision=bfloat16", "--export=h5,keras,saved_model")
    gpu_run(tmp_path, *flags)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert set(result["exports"]) == {"h5", "keras", "saved_model"}
    done = run("trainer", "evaluate", "--model_dir=run", "--virtual_devices=2", "--json", **ENVIRONMENT)
    assert json.loads(done.out)["eval_accuracy"] == pytest.approx(result["eval_accuracy"], abs=2e-3), done.err
    assert run("trainer", "export", "--model_dir=run", "--export=h5", **ENVIRONMENT).code == 0
    assert run("trainer", "verify", "--model_dir=run", **ENVIRONMENT).code == 0


def test_bench_and_doctor(run):
    done = run("trainer", "bench", "--dataset=shapes", "--replicas=2", "--seconds=0.1", "--repeats=1", "--json",
               "--model=small_models:smooth", **ENVIRONMENT)
    (row,) = [json.loads(line) for line in done.out.splitlines()]
    assert row["replicas"] == 2 and "XLA on" in row["devices"], done.err
    done = run("trainer", "doctor", "--virtual_devices=2", **ENVIRONMENT)
    assert done.code == 0 and "all-reduce of 4 MiB between 2 replicas: right" in done.out, done.err


def test_two_workers_of_one_device_equal_one_process(tmp_path, run):
    flags = (*FLAGS, "--model=small_models:normalized", "--xla=off")
    done = run("launch.local", "--num_workers=2", "--", *flags, "--model_dir=run", **ENVIRONMENT)
    assert done.code == 0, done.out + done.err
    alone = tmp_path / "alone"
    alone.mkdir()
    finish(start(alone, *flags, "--virtual_devices=2", **ENVIRONMENT), 0)
    assert ledger(tmp_path) == ledger(alone)
    for ours, theirs in zip(reported(tmp_path), reported(alone), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_this_suite_really_takes_the_gpus_path():
    """The folder in PYTHONPATH is what makes the difference; without it, all of the above would test the CPU's path."""
    code = ("from trainer.distributed.devices.choice import KINDS\n"
            "print(KINDS['CPU'].prefetches, KINDS['CPU'].collectives)")
    for more, wanted in ((ENVIRONMENT, "True True"), ({}, "False False")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(**more))
        assert done.stdout.strip() == wanted, done.stderr
