"""timeline.jsonl: what a line means, and the share of a run's time that counts."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import Stopped
from trainer.reporting import jsonl
from trainer.reporting.timeline import record
from trainer.reporting.timeline.goodput import goodput, starts_of
from trainer.reporting.timeline.record import Timeline


def start(at, *events, code=None):
    """The lines of a start at a time: (seconds, event or phase, step) of each; ended with a code, or killed."""
    lines = [{"time": at, "elapsed": 0.0, "event": "start", "step": 0}]
    for elapsed, what, step in events:
        known = what in ("resume", "save", "progress")
        lines.append({"time": at + elapsed, "elapsed": elapsed, "event": what if known else "phase", "step": step,
                      **({} if known else {"phase": what})})
    if code is not None:
        elapsed, _, step = events[-1]
        lines.append({"time": at + elapsed, "elapsed": elapsed, "event": "stop", "code": code, "cause": "",
                      "step": step})
    return lines


def test_the_time_of_a_run_by_cause():
    lines = start(100, (2, "reading data", 0), (3, "resume", 0), (4, "compiling", 0), (10, "training", 1),
                  (20, "evaluating", 11), (25, "training", 11), (30, "saving", 16), (30, "save", 16),
                  (31, "exporting", 16), (40, "exporting", 16), code=0)
    found = goodput(starts_of(lines))
    assert found["seconds"] == {"training": 15, "start": 4, "compile": 6, "input_wait": None, "evaluation": 5,
                                "checkpoint": 1, "export": 9, "lost": 0, "stopped": 0}
    assert (found["wall_seconds"], found["share"], found["starts"], found["lost_steps"]) == (40, 15 / 40, 1, 0)


def test_steps_that_a_kill_lost_do_not_count():
    """Killed at step 20 or later; the checkpoint was of step 10, which was passed half way."""
    lines = start(0, (1, "resume", 0), (1, "training", 0), (21, "progress", 20)) + start(
        30, (1, "resume", 10), (2, "training", 10), (12, "evaluating", 20), (13, "exporting", 20), code=0)
    found = goodput(starts_of(lines))
    assert found["seconds"] | {"input_wait": 0} == {
        "training": 20, "start": 3, "compile": 0, "input_wait": 0, "evaluation": 1, "checkpoint": 0, "export": 0,
        "lost": 10, "stopped": 9}
    assert (found["lost_steps"], found["starts"], found["wall_seconds"]) == (10, 2, 43)


def test_a_later_start_that_falls_back_further_loses_more():
    lines = start(0, (1, "resume", 0), (1, "training", 0), (11, "progress", 10)) + start(
        11, (1, "resume", 10), (1, "training", 10), (6, "progress", 15)) + start(
        17, (1, "resume", 5), (1, "training", 5), (11, "progress", 15), code=75)
    found = goodput(starts_of(lines))
    assert (found["lost_steps"], found["seconds"]["lost"]) == (5 + 10, 5 + 5) and found["seconds"]["training"] == 15


def test_time_after_a_run_was_done_is_not_stopped_time():
    lines = start(0, (1, "resume", 0), (1, "training", 0), (5, "exporting", 4), code=0) + start(
        1000, (1, "resume", 4), (2, "exporting", 4), (3, "exporting", 4), code=0)
    assert goodput(starts_of(lines))["seconds"]["stopped"] == 0
    lines[4]["code"] = 75
    assert goodput(starts_of(lines))["seconds"]["stopped"] == 995


def test_what_waited_for_input_is_no_training():
    lines = start(0, (0, "training", 0), (10, "exporting", 9), code=0)
    assert goodput(starts_of(lines), input_share=0.2)["seconds"]["input_wait"] == 2
    assert goodput(starts_of(lines), input_share=0.2)["share"] == 0.8


def test_a_clock_that_was_set_changes_no_length():
    lines = start(1000, (2, "training", 0), (12, "exporting", 9), code=0)
    lines[2]["time"] -= 3600
    assert goodput(starts_of(lines))["seconds"]["training"] == 10


@settings(max_examples=100, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional={
    "time": st.none() | st.floats() | st.text(max_size=2), "elapsed": st.floats(0, 1e9) | st.none(),
    "event": st.sampled_from(["start", "resume", "save", "stop", "phase", "?"]), "step": st.integers(0, 9),
    "phase": st.sampled_from(["training", "evaluating", "?"]) | st.none()}), max_size=12))
def test_any_lines(lines):
    found = goodput(starts_of(lines))
    assert found["share"] is None or 0 <= found["share"] <= 1
    assert all(value is None or value >= 0 for value in found["seconds"].values())


def test_what_is_written(tmp_path, monkeypatch):
    path = tmp_path / "timeline.jsonl"
    with Timeline(path, time.monotonic() - 5) as timeline:
        timeline.resumed(3)
        timeline.enter("training")
        timeline.enter("training")
        with timeline.phase("saving"):
            timeline.saving()
        monkeypatch.setattr(record, "PROGRESS_SECONDS", 0)
        timeline.step = 4
        timeline.enter("training")
    lines = jsonl.read(path)
    assert [(line["event"], line.get("phase"), line["step"]) for line in lines] == [
        ("start", None, 0), ("resume", None, 3), ("phase", "training", 3), ("phase", "saving", 3), ("save", None, 3),
        ("phase", "training", 3), ("progress", None, 4), ("stop", None, 4)]
    assert 5 <= lines[0]["elapsed"] < 15 and lines[-1]["code"] == 0


def test_every_start_adds_to_the_file_and_says_why_it_stopped(tmp_path):
    path = tmp_path / "timeline.jsonl"
    for error in (Stopped("asked to stop", "again"), ZeroDivisionError()):
        with pytest.raises(type(error)), Timeline(path, time.monotonic()):
            raise error
    path.write_bytes(path.read_bytes() + b'{"time": 1, "ela')  # the power went
    with Timeline(path, time.monotonic()):
        pass
    assert [(line["code"], line["cause"]) for line in jsonl.read(path) if line["event"] == "stop"] == [
        (75, "asked to stop"), (None, "ZeroDivisionError"), (0, "done")]


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path):
    for path in (tmp_path / "nowhere/timeline.jsonl", tmp_path, None):
        with Timeline(path, time.monotonic()) as timeline:
            timeline.enter("training")
            assert timeline.lines() == []
