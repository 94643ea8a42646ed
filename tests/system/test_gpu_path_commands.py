"""Whole commands with logical CPU devices used as GPUs are: XLA, prefetch to the device, resident images, collectives.

Nothing here is a GPU's arithmetic; it is every line of Python and every graph that a GPU box would run.
"""

import json
import signal
import subprocess
import sys

import pytest
from cases import long
from conftest import ROOT, environment
from gpu_like import ENVIRONMENT
from runs import assert_equal_runs, finish, ledger, reported, start, wait_for_step

FLAGS = ("--dataset=small_data:few", "--model=small_models:regularized", "--batch_size=16", "--max_steps=30",
         "--optimizer=sgd", "--learning_rate=0.02", "--augment=flip,crop", "--eval_every_epochs=0.2",
         "--log_every_steps=4", "--checkpoint_every_steps=9", "--num_gpus=0", "--export=none", "--ledger")

# The options of docs/training.md, in which a run's state has more parts.
OPTIONS = ("--model=small_models:options", "--ema_decay=0.9", "--accumulate_steps=2", "--microbatch=8",
           "--lookahead_steps=3", "--train_sizes=16,24@0.3")


def gpu_run(folder, *more, code=0):
    return finish(start(folder, *FLAGS, *more, **ENVIRONMENT), code)


@pytest.mark.parametrize("more", [
    long(("--precision=float16", "--clip_norm=1", *OPTIONS)),
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


def test_the_commands_on_what_it_left(tmp_path, run):
    flags = ("--model=small_models:normalized", "--virtual_devices=2", "--precision=bfloat16",
             "--export=h5,keras,saved_model")
    gpu_run(tmp_path, *flags)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert set(result["exports"]) == {"h5", "keras", "saved_model"}
    done = run("trainer", "evaluate", "--model_dir=run", "--virtual_devices=2", "--json", **ENVIRONMENT)
    assert json.loads(done.out)["eval_accuracy"] == pytest.approx(result["eval_accuracy"], abs=2e-3), done.err
    assert run("trainer", "export", "--model_dir=run", "--export=h5", **ENVIRONMENT).code == 0
    assert run("trainer", "verify", "--model_dir=run", **ENVIRONMENT).code == 0


def test_two_workers_of_one_device_equal_one_process(tmp_path, run):
    # A model without corners: rounding differs between the two, and a ReLU would let it grow.
    flags = (*FLAGS, "--model=small_models:smooth", "--xla=off")
    done = run("launch.local", "--num_workers=2", "--", *flags, "--model_dir=run", **ENVIRONMENT)
    assert done.code == 0, done.out + done.err
    alone = tmp_path / "alone"
    alone.mkdir()
    finish(start(alone, *flags, "--virtual_devices=2", **ENVIRONMENT), 0)
    assert ledger(tmp_path) == ledger(alone)
    for ours, theirs in zip(reported(tmp_path), reported(alone), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


@pytest.mark.long
def test_every_check_of_make_test_gpu_works(tmp_path):
    """The program that a GPU box runs, on logical CPU devices with small models."""
    done = subprocess.run([sys.executable, ROOT / "tests/gpu/run.py", "--devices=cpu", f"--out={tmp_path / 'report'}"],
                          cwd=ROOT, capture_output=True, text=True, env=environment())
    checks = json.loads((tmp_path / "report/report.json").read_text())["checks"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [check["name"] for check in checks if check["result"] != "passed"] == ["memory"]
    assert "needs" not in done.stdout and len(checks) == 11
    assert (tmp_path / "report/report.md").read_text().count("| passed |") == 10


def test_a_check_that_fails_or_aborts_is_told(tmp_path):
    """By its name, with the others' results beside it; nothing of a GPU box's is hidden by the abort of one check."""
    code = ("import os, sys; sys.argv[1:1] = []; sys.path.insert(0, 'tests/gpu'); import run, command_checks\n"
            "def wrong(box): assert 1 + 1 == 3, 'the sum is 2'\n"
            "run.CHECKS = {'fails': (wrong, 60), 'aborts': (lambda box: os.abort(), 60), 'hangs': "
            "(lambda box: __import__('time').sleep(99), 2), 'works': (lambda box: ('well', {}), 60)}\n"
            "run.__file__ = sys.argv[0] = os.environ['SCRIPT']\nrun.main()")
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script, "--devices=cpu", f"--out={tmp_path / 'report'}"], cwd=ROOT,
                          capture_output=True, text=True, env=environment(SCRIPT=str(script)))
    checks = {check["name"]: check for check in json.loads((tmp_path / "report/report.json").read_text())["checks"]}
    assert done.returncode == 1, done.stdout + done.stderr
    assert {name: check["result"] for name, check in checks.items()} == {
        "fails": "failed", "aborts": "failed", "hangs": "failed", "works": "passed"}
    assert "the sum is 2" in checks["fails"]["words"] and "ended with -6" in checks["aborts"]["words"]
    assert "FAILED: fails, aborts, hangs" in done.stdout


def test_this_suite_really_takes_the_gpus_path():
    """The folder in PYTHONPATH is what makes the difference; without it, all of the above would test the CPU's path."""
    code = ("from trainer.distributed.devices.choice import KINDS\n"
            "print(KINDS['CPU'].prefetches, KINDS['CPU'].collectives)")
    for more, wanted in ((ENVIRONMENT, "True True"), ({}, "False False")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(**more))
        assert done.stdout.strip() == wanted, done.stderr
