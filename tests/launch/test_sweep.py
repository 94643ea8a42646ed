"""Sweeps: their results, and real ones that are stopped, killed and go on."""

import contextlib
import csv
import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environment

from launch.gpus import Slot
from launch.sweep import grid, results
from launch.sweep.job import Job
from trainer.reporting import jsonl
from trainer.storage.model_dir import ModelDir


@pytest.fixture
def swept(tmp_path):
    """Runs of three seeds in a folder, and what writes a result for one."""
    runs, _ = grid.check(grid.plan("--seed=1|2|3\n--augment=flip")[0], tmp_path)

    def finish(run, accuracy, **settings):
        run.folder.mkdir(exist_ok=True)
        ModelDir(run.folder).write_config(dataclasses.replace(run.config, **settings), {
            "total_steps": 10, "data": {"classes": ["a"], "image_shape": [1, 1, 1]}})
        (run.folder / "result.json").write_text(json.dumps({
            "eval_accuracy": accuracy, "eval_loss": None, "step": 10, "best": {"accuracy": 0.75, "step": 5},
            "images_per_second": 1000.5, "wall_seconds": 7.5, "ended_early": None}))
    return runs, finish


def test_the_best_run_is_the_first_row(swept, tmp_path):
    runs, finish = swept
    finish(runs[0], 0.25)
    finish(runs[2], 0.5)
    rows = results.rows(runs, {"seed=2": 76})
    assert [(row["run"], row["seed"], row["code"], row["eval_accuracy"]) for row in rows] == [
        ("seed=3", "3", 0, 0.5), ("seed=1", "1", 0, 0.25), ("seed=2", "2", 76, None)]
    results.write(tmp_path, rows)
    with open(tmp_path / "sweep.csv", newline="", encoding="utf-8") as file:
        first, *_, last = csv.DictReader(file)
    assert first == {"run": "seed=3", "seed": "3", "code": "0", "eval_split": "test", "eval_accuracy": "0.5",
                     "eval_loss": "", "best_accuracy": "0.75", "best_step": "5", "step": "10",
                     "images_per_second": "1000.5", "wall_seconds": "7.5"}
    assert last["code"] == "76" and last["step"] == ""
    assert json.loads((tmp_path / "sweep.json").read_text())["runs"] == rows
    assert results.codes(tmp_path) == {"seed=1": 0, "seed=2": 76, "seed=3": 0}


@pytest.mark.slow
def test_a_run_keeps_to_the_cores_of_its_slot(swept):
    (run, *_), _ = swept
    core = max(os.sched_getaffinity(0))
    job = Job(run)
    job.start(Slot("CPU 1", {}, (core,)))
    deadline = time.monotonic() + 60
    while b"trainer.main" not in Path(f"/proc/{job.process.pid}/cmdline").read_bytes().split(b"\0")[:5]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert os.sched_getaffinity(job.process.pid) == {core}
    job.process.kill()


def test_done_is_what_has_a_result_of_the_same_settings(swept):
    (run, *_), finish = swept
    assert results.figures(run) is None
    finish(run, 0.5, data_dir="/elsewhere", num_gpus=1)
    assert results.figures(run)["eval_accuracy"] == 0.5
    finish(run, 0.5, epochs=1)
    assert results.figures(run) is None
    finish(run, 0.5, learning_rate=0.5)
    assert results.figures(run) is None
    finish(run, "good")
    assert results.figures(run) is None
    finish(run, 0.5)
    (run.folder / "result.json").write_text("{")
    assert results.figures(run) is None
    finish(run, 0.5)
    known = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps({**known, "total_steps": 11}))
    assert results.figures(run) is None


def test_a_folder_of_another_run_is_an_obstacle_only_if_something_was_saved(swept):
    (run, *_), finish = swept
    finish(run, 0.5, learning_rate=0.5)
    assert results.obstacles(run) == []
    finish(run, 0.5, batch_size=64)  # which isn't given, so the run goes on with it
    assert results.figures(run) is not None
    finish(run, 0.5, learning_rate=0.5)
    (run.folder / "checkpoints/step-00000010").mkdir(parents=True)
    (run.folder / "checkpoints/step-00000010/manifest.json").write_text("{}")
    (line,) = results.obstacles(run)
    assert "another --learning_rate: 0.5; received 0.001" in line
    finish(run, 0.5, epochs=1)
    assert results.obstacles(run) == []


FILE = """
--dataset=small_data:few
--model=small_models:smooth
--batch_size=32
--export=none
--log_every_steps=1
--eval_every_epochs=10
---
--epochs=0.8
---
--flagfile=long.cfg
--seed=1 | 2
---
--dataset=folder
--data_dir=nowhere
"""
SHORT, BROKEN = "dataset=small_data_few,epochs=0.8", "dataset=folder,data_dir=nowhere"
BOTH = [f"dataset=small_data_few,flagfile=long.cfg,seed={seed}" for seed in (1, 2)]


@pytest.fixture
def sweep(tmp_path):
    """Starts `launch.sweep file.sweep` in the test's folder; none outlives the test."""
    begun = []

    def start(*words, out=subprocess.PIPE, **more):
        begun.append(subprocess.Popen(
            [sys.executable, "-m", "launch.sweep", "file.sweep", *words], cwd=tmp_path, text=True, stdout=out,
            stderr=out, stdin=subprocess.DEVNULL, env=environment(**more)))
        return begun[-1]
    yield start
    for process in begun:
        process.kill()
        process.communicate()


def finish(process, code):
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, out + err
    assert "Traceback" not in out + err
    return out, err


def wait_until(true, seconds=100):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def read_all(terminal):
    """What was written to a terminal until all that could write to it were gone."""
    text = b""
    with contextlib.suppress(OSError):  # so a terminal says that the other side is closed
        while part := os.read(terminal, 1 << 16):
            text += part
    os.close(terminal)
    return text.decode()


def test_a_sweep_goes_on_after_every_kind_of_end(sweep, tmp_path, hangup):
    (tmp_path / "file.sweep").write_text(FILE)
    (tmp_path / "long.cfg").write_text("--epochs=10000")
    out = tmp_path / "runs/file"

    def log(name):
        path = out / name / "sweep.log"
        return path.read_text() if path.exists() else ""

    def steps(name):
        path = out / name / "metrics.jsonl"
        return [line["step"] for line in jsonl.read(path) if line["split"] == "train"] if path.exists() else []

    # TF_CONFIG is of the job that the sweep may be a part of, not of its runs.
    first = sweep("--slots=2", TF_CONFIG="{}")
    wait_until(lambda: all(map(steps, BOTH)))
    first.send_signal(hangup)
    _, err = finish(first, 75)
    assert "asked to stop (SIGHUP); 3 of 4 runs aren't done" in err
    rows = {row["run"]: row for row in json.loads((out / "sweep.json").read_text())["runs"]}
    assert [rows[name]["code"] for name in (SHORT, BROKEN, *BOTH)] == [0, None, 75, 75]
    written = (out / SHORT / "result.json").stat().st_mtime_ns

    before = [max(steps(name)) for name in BOTH]
    second = sweep("--slots=2")
    wait_until(lambda: all(max(steps(name)) > then for name, then in zip(BOTH, before, strict=True)))
    second.kill()  # its runs save and end by themselves; a next start waits for them
    wait_until(lambda: all(log(name).count("asked to stop (SIGTERM)") == 2 for name in BOTH), 60)
    end = max(max(steps(name)) for name in BOTH) + 300
    (tmp_path / "long.cfg").write_text(f"--epochs=10000\n--max_steps={end}")

    ours, theirs = pty.openpty()
    third = sweep("--slots=2", out=theirs, TERM="xterm", COLUMNS="150", LINES="20")
    os.close(theirs)
    wait_until(lambda: log(BOTH[0]).count("resuming from step") == 2)
    victim = next(pid for pid in children(third) if BOTH[0] in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(int(victim), signal.SIGKILL)
    said = read_all(ours)
    assert third.wait(10) == 65
    assert f"{BROKEN}: failed: it ended with 65: --data_dir" in said
    assert "was ended by SIGKILL" in said and "it is started again in 1 s" in said
    assert "images/s" in said and "4 runs: 2 running" in said  # the table while it went on
    assert f"lockstep: 1 of 4 runs failed:\r\n  {BROKEN} ended with 65" in said

    assert [steps(name) for name in BOTH] == [list(range(1, end + 1))] * 2
    assert log(SHORT).count("going on") == 0 and (out / SHORT / "result.json").stat().st_mtime_ns == written
    said, _ = finish(sweep("--results"), 0)
    titles, *rows = [line.split() for line in said.strip().splitlines()]
    assert titles[:5] == ["dataset", "epochs", "flagfile", "seed", "data_dir"] and len(rows) == 4
    assert rows[-1][0] == "folder" and rows[-1][-9:] == ["65", *["-"] * 8]
    (tmp_path / "file.sweep").write_text(FILE.replace("batch_size=32", "batch_size=16"))
    _, err = finish(sweep(), 64)
    assert err.count("holds a run with another --batch_size: 32; received 16") == 3


def test_a_second_signal_ends_the_sweep_and_its_runs_at_once(sweep, tmp_path):
    (tmp_path / "file.sweep").write_text("--dataset=small_data:few\n--model=small_models:slow\n--seed=1|2\n")
    process = sweep(SLOW_PHASE="compiling")
    wait_until((tmp_path / "slow").exists)
    (run,) = children(process)
    _, err = finish(sweep(), 73)
    assert "runs/file is in use by process" in err and "another --out" in err
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)  # both within a second would be one wish
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, err = finish(process, 75)
    assert time.monotonic() - began < 2 and "a second signal" in err
    wait_until(lambda: not Path(f"/proc/{run}").exists(), 10)
    assert "a second signal" in (tmp_path / "runs/file/seed=1/sweep.log").read_text()


def test_wrong_flags_are_answered_at_once(run, tmp_path):
    (tmp_path / "file.sweep").write_text("--optimizer=sdg | sgd\n")
    done = run("launch.sweep", "file.sweep", PYTHONPROFILEIMPORTTIME="1")
    assert done.code == 64 and "--optimizer must be" in done.err and "correct file.sweep" in done.err
    assert "tensorflow" not in done.err and not (tmp_path / "runs").exists()
    for words, said in (((), "a sweep has one file; received none"), (("nothing.sweep",), "No such file"),
                        (("file.sweep", "--slots=-1", "--gpus=a b"), "--gpus must be all"),
                        (("file.sweep", "--results", "--out=x"), "--optimizer must be")):
        done = run("launch.sweep", *words)
        assert done.code == 64 and said in done.err and "fix: " in done.err
