"""The real command in real processes, disturbed by real signals."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import runs
from cases import long
from event_files import scalars, values
from runs import assert_equal_runs, finish, ledger, reported, state, wait_for_step

from trainer.quality.predictions import Predictions
from trainer.reporting import jsonl
from trainer.reporting.timeline.goodput import starts_of

# Batch norm, momentum, augmentation, two replicas; evaluations, logs and checkpoints that fall on different steps.
FLAGS = ("--dataset=small_data:few", "--model=small_models:normalized", "--batch_size=16", "--max_steps=40",
         "--optimizer=sgd", "--learning_rate=0.05", "--augment=flip,crop", "--eval_every_epochs=0.2",
         "--log_every_steps=4", "--checkpoint_every_steps=9", "--num_gpus=0", "--virtual_devices=2", "--export=none",
         "--ledger")


def start(folder, *more, **options):
    return runs.start(folder, *FLAGS, *more, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder, fresh=True), 0)
    return folder


def test_a_run_that_was_killed_ends_like_one_that_was_not(undisturbed, tmp_path):
    for step in (4, 20, 32):
        process = start(tmp_path)
        wait_for_step(process, tmp_path, step)
        process.kill()
        process.communicate()
    out, _ = finish(start(tmp_path), 0)
    assert "resuming from step" in out
    assert_equal_runs(tmp_path, undisturbed)
    starts = starts_of(jsonl.read(tmp_path / "run/timeline.jsonl"))
    assert [start.code for start in starts] == [None, None, None, 0]
    found = json.loads((tmp_path / "run/result.json").read_text())["goodput"]
    assert found["starts"] == 4 and 0 < found["share"] < 1 and min(found["seconds"][cause] for cause in (
        "training", "start", "compile", "evaluation", "checkpoint", "stopped")) > 0


@pytest.mark.parametrize("number", [  # SIGINT: test_image_files, test_phases
    signal.SIGTERM, long(signal.SIGUSR1)])
def test_a_signal_saves_and_exits_75(undisturbed, tmp_path, number):
    process = start(tmp_path)
    wait_for_step(process, tmp_path, 12)
    process.send_signal(number)
    _, err = finish(process, 75)
    assert f"asked to stop ({number.name})" in err and "run the same command again" in err and "Traceback" not in err
    # Nothing depends on where the folder lies: one goes on where it was moved to, the other one as a copy.
    there = tmp_path / "there"
    there.mkdir()
    (shutil.copytree if number == signal.SIGTERM else shutil.move)(tmp_path / "run", there / "run")
    finish(start(there), 0)
    assert_equal_runs(there, undisturbed)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(undisturbed, tmp_path):
    process = start(tmp_path)
    wait_for_step(process, tmp_path, 32)
    process.kill()
    process.communicate()
    last = max(path.parent for path in (tmp_path / "run/checkpoints").glob("step-*/manifest.json"))
    data = bytearray((last / "state.data-00000-of-00001").read_bytes())
    data[1000] ^= 1
    (last / "state.data-00000-of-00001").write_bytes(data)
    _, err = finish(start(tmp_path), 0)
    assert "is damaged: state.data-00000-of-00001 is not what was written" in err
    assert_equal_runs(tmp_path, undisturbed)
    aside = last.with_name(f"{last.name}.damaged") / "state.data-00000-of-00001"  # kept, not removed
    assert aside.read_bytes() == bytes(data)


def sum_of_losses(folder):
    """The losses of all steps; each line of metrics.jsonl is the mean over the steps since the one before."""
    lines = [line for line in reported(folder) if line["split"] == "train"]
    steps = [line["step"] for line in lines]
    return sum(line["loss"] * (step - before) for line, step, before in zip(lines, steps, [0, *steps], strict=False))


def test_more_epochs_go_on_from_a_finished_run_also_with_other_reports(undisturbed, tmp_path):
    finish(start(tmp_path, "--max_steps=22", "--noledger", "--log_every_steps=7", "--eval_every_epochs=0.03"), 0)
    out, _ = finish(start(tmp_path), 0)
    for change in ("--max_steps was 22, now 40", "--ledger was False, now True", "--log_every_steps was 7, now 4",
                   "--eval_every_epochs was 0.03, now 0.2"):
        assert change in out
    assert "resuming from step 22" in out and state(tmp_path)[0] == state(undisturbed)[0]
    for variable, value in state(tmp_path)[1].items():
        np.testing.assert_array_equal(value, state(undisturbed)[1][variable])
    trained = [line["step"] for line in reported(tmp_path) if line["split"] == "train"]
    assert trained == [7, 14, 21, 22, 24, 28, 32, 36, 40]
    assert scalars(tmp_path / "run/tensorboard", "train") == trained
    assert sum_of_losses(tmp_path) == pytest.approx(sum_of_losses(undisturbed), rel=1e-12)
    lines = [json.loads(line)["step"] for line in (tmp_path / "run/ledger.jsonl").read_text().splitlines()]
    assert lines == list(range(23, 41))


def test_any_history_of_kills_and_replica_counts_uses_every_example_once_an_epoch(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        records = rng.integers(0, 256, (20, 3073), np.uint8)
        records[:, 0] %= 10
        records.tofile(tmp_path / f"{name}.bin")
    # A model without corners and batch norm, so that losses agree to rounding.
    flags = ("--dataset=cifar10", f"--data_dir={tmp_path}", "--model=small_models:smooth", "--learning_rate=0.01")
    process = start(tmp_path, *flags, "--virtual_devices=4", "--max_steps=30", "--checkpoint_every_steps=3")
    wait_for_step(process, tmp_path, 8)
    process.kill()
    process.communicate()
    begun = max(int(path.parent.name[5:]) for path in (tmp_path / "run/checkpoints").glob("step-*/manifest.json"))
    for steps, devices in ((20, 2), (30, 0), (40, 4)):
        finish(start(tmp_path, *flags, f"--virtual_devices={devices}", f"--max_steps={max(steps, begun)}"), 0)
    through = tmp_path / "through"
    through.mkdir()
    finish(start(through, *flags), 0)
    assert ledger(tmp_path) == ledger(through) and len(ledger(through)) == 40
    used = [number for ids in ledger(tmp_path).values() for number in ids]
    for epoch in range(6):
        assert sorted(used[100 * epoch:100 * (epoch + 1)]) == list(range(100))
    losses = [{line["step"]: line["loss"] for line in reported(folder) if line["split"] == "train"
               and line["step"] % 4 == 0} for folder in (tmp_path, through)]
    for step, loss in losses[1].items():
        # A window that a start with another end cut in two has no line of its own.
        if step in losses[0] and step not in (20, 32):
            assert abs(losses[0][step] - loss) / loss < 1e-5, step


def test_a_run_that_is_resumed_with_fewer_steps_is_evaluated_where_it_ends(undisturbed, tmp_path):
    process = start(tmp_path)
    wait_for_step(process, tmp_path, 20)
    process.terminate()
    finish(process, 75)
    finish(start(tmp_path, "--max_steps=3"), 0)
    result = json.loads((tmp_path / "run/result.json").read_text())
    last = reported(tmp_path)[-1]
    assert (result["step"], result["eval_accuracy"]) == (last["step"], last["accuracy"]) and last["split"] == "eval"
    assert result["step"] >= 20


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    process = start(tmp_path)
    wait_for_step(process, tmp_path, 4)
    process.send_signal(signal.SIGSTOP)  # it is still alive, and changes nothing while we look
    states = list(Path(f"/proc/{process.pid}/task").glob("*/stat"))
    while any(path.read_text().rpartition(")")[2].split()[0] != "T" for path in states):
        time.sleep(0.01)  # a thread stops once its call of the system is done
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    _, err = finish(start(tmp_path), 73)
    assert f"is in use by process {process.pid}" in err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    process.send_signal(signal.SIGCONT)
    process.terminate()
    finish(process, 75)


def test_a_profile_changes_nothing_but_where_calls_end(undisturbed, tmp_path):
    out, _ = finish(start(tmp_path, "--profile_steps=10-14"), 0)
    assert "the profile of steps up to 14 is in " in out
    (profile,) = (tmp_path / "run/tensorboard/plugins/profile").glob("*/*.xplane.pb")
    assert profile.stat().st_size > 10_000
    assert_equal_runs(tmp_path, undisturbed)


def test_what_a_run_leaves(undisturbed):
    run = undisturbed / "run"
    result = json.loads((run / "result.json").read_text())
    assert {"eval_accuracy", "eval_loss", "step", "epoch", "best", "images_per_second", "replicas", "wall_seconds",
            "exports"} <= set(result)
    assert result["step"] == 40 and result["replicas"] == 2
    evaluations = [line for line in reported(undisturbed) if line["split"] == "eval"]
    assert [line["step"] for line in evaluations] == [16, 32, 40]
    assert result["eval_accuracy"] == evaluations[-1]["accuracy"] and evaluations[-1]["examples"] == 200
    assert result["best"]["accuracy"] == max(line["accuracy"] for line in evaluations)
    config = json.loads((run / "config.json").read_text())
    assert config["batch_size"] == 16 and config["precision"] == "float32" and config["xla"] == "off"
    assert config["versions"]["tensorflow"].startswith("2.21") and config["data"]["fingerprint"].startswith("sha256:")
    predictions, quality = Predictions.read(run / "predictions.npz"), result["quality"]
    assert (predictions.split, predictions.step, predictions.ids.tolist()) == ("test", 40, list(range(200)))
    assert predictions.accuracy == quality["accuracy"] == result["eval_accuracy"] and quality["temperature"] is None
    assert quality["accuracy_interval"][0] < result["eval_accuracy"] < quality["accuracy_interval"][1]
    assert (run / "report/curves.png").read_bytes().startswith(b"\x89PNG")
    assert "going on" not in (run / "log.txt").read_text()
    assert scalars(run / "tensorboard", "train", "quality/learning_rate") == list(range(4, 41, 4))
    for tag in ("quality/loss", "quality/accuracy", "quality/learning_rate", "speed/images_per_second"):
        assert scalars(run / "tensorboard", "eval", tag) == [16, 32, 40]
    for tag in ("quality/confusion", "quality/reliability", "quality/mistakes"):
        assert scalars(run / "tensorboard", "eval", tag) == sorted({40, result["best"]["step"]})
    assert "conv2d" in values(run / "tensorboard", "train", "keras")[0][1].decode()
    assert "| learning\\_rate | " in values(run / "tensorboard", "train", "settings")[0][1].decode()
