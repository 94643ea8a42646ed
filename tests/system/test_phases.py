"""A signal in each phase: exit 75 within ten seconds, and what goes on afterwards is the same run."""

import signal
import time

import pytest
import runs
from runs import assert_equal_runs, finish

FLAGS = ("--dataset=small_data:few", "--model=small_models:slow", "--batch_size=16", "--max_steps=24", "--num_gpus=0",
         "--eval_every_epochs=0.1", "--log_every_steps=4", "--export=saved_model", "--ledger")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(runs.start(folder, *FLAGS), 0)
    return folder


def stopped_in(folder, phase, number):
    """Sends a signal to a run once it is in a phase; returns what it wrote to stderr."""
    marker = folder / "slow"
    process = runs.start(folder, *FLAGS, fresh=phase == "starting", SLOW_PHASE=phase)
    deadline = time.monotonic() + 100
    while phase != "starting" and not marker.exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    if phase == "starting":
        while not (folder / "run/log.txt").exists():  # TensorFlow is imported next
            time.sleep(0.02)
    marker.unlink(missing_ok=True)
    began = time.monotonic()
    process.send_signal(number)
    _, err = finish(process, 75)
    assert time.monotonic() - began < 10, phase
    return err


def test_a_signal_is_obeyed_in_every_phase(undisturbed, tmp_path):
    assert "asked to stop (SIGTERM)" in stopped_in(tmp_path, "starting", signal.SIGTERM)
    for phase, number, said in (("compiling", signal.SIGUSR1, "while compiling"),
                                ("evaluating", signal.SIGINT, "while compiling"),
                                ("exporting", signal.SIGTERM, "while exporting")):
        err = stopped_in(tmp_path, phase, number)
        assert f"asked to stop ({number.name}) {said}; nothing was left to save" in err
    out, _ = finish(runs.start(tmp_path, *FLAGS), 0)
    assert "resuming from step 24" in out
    assert_equal_runs(tmp_path, undisturbed)
    assert not list((tmp_path / "run").glob(".export*"))
