"""A run with the options of docs/training.md, all at once: killed and resumed, and evaluated by the command."""

import json
import signal
import time

import pytest
from runs import assert_equal_runs, finish, start, state

FLAGS = ("--dataset=shapes", "--model=small_models:options", "--batch_size=8", "--accumulate_steps=2", "--microbatch=4",
         "--sync_batch_norm", "--max_steps=16", "--optimizer=sgd", "--learning_rate=0.02", "--scale_learning_rate=sqrt",
         "--augment=flip,mixup", "--ema_decay=0.9", "--lookahead_steps=3", "--clip_norm=1", "--eval_every_epochs=0.02",
         "--log_every_steps=4", "--checkpoint_every_steps=5", "--num_gpus=0", "--virtual_devices=2", "--ledger",
         "--export=none", "--train_sizes=16,24@0.01")


def test_a_run_with_all_options_that_was_killed_equals_one_that_was_not(tmp_path, run):
    killed = tmp_path / "killed"
    killed.mkdir()
    out, _ = finish(start(tmp_path, *FLAGS), 0)
    assert "learning rate 0.02 × √(16 / 256) = 0.005" in out
    assert "global batch 16 = 4 passes × 2 replicas × 2" in out
    process, deadline = start(killed, *FLAGS), time.monotonic() + 300
    while not list(killed.glob("run/checkpoints/step-*[1-9]/manifest.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out, _ = finish(start(killed, *FLAGS), 0)
    assert "resuming from step" in out and "batch norm takes its moments over all replicas" in out
    assert_equal_runs(killed, tmp_path)
    assert {name.split("/")[0] for name in state(tmp_path)[1]} >= {"average", "model", "sgd"}
    done = run("trainer", "evaluate", "--model_dir=run", "--json")
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert json.loads(done.out)["eval_accuracy"] == pytest.approx(result["eval_accuracy"], abs=1e-3), done.err
