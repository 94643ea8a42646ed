"""Metrics summed over windows, independent of where calls end."""

import dataclasses
import json

import numpy as np

from trainer.config import Config
from trainer.plan import make_plan
from trainer.train.evaluation import Evaluation
from trainer.train.loss_monitor import LossMonitor
from trainer.train.metrics import RunMetrics
from trainer.train.step.train_loop import StepRecords


def records(first, last):
    steps = np.arange(first + 1, last + 1)
    loss = np.where(steps == 7, np.nan, 1 / steps).astype(np.float32)
    return StepRecords(loss, steps % 5, np.full(len(steps), 0.1), np.isfinite(loss), np.full(len(steps), 10),
                       np.ones(len(steps)), None, None)


def lines(cuts, through_json=False):
    plan = make_plan(Config(batch_size=10, epochs=2.3, log_every_steps=5), 100, 1)
    progress, found = RunMetrics(), []
    monitor = LossMonitor(Config(spike_factor=2.0), "float32", lambda step: [step])
    for first, last in zip((0, *cuts), (*cuts, plan.total_steps), strict=True):
        found += progress.update(records(first, last), first, plan, monitor)
        if through_json:
            progress = RunMetrics.from_json(json.loads(json.dumps(dataclasses.asdict(progress))))
            monitor = LossMonitor(Config(spike_factor=2.0), "float32", lambda step: [step], progress.recent)
    return found


def test_windows_do_not_depend_on_where_calls_end():
    whole = lines(())
    assert [line["step"] for line in whole] == [5, 10, 15, 20, 23]
    for cuts in ((1, 2, 3), (5, 10), (7, 22)):
        assert lines(cuts) == lines(cuts, through_json=True) == whole


def test_a_step_without_a_finite_loss_is_counted_and_left_out_of_the_mean():
    window = lines(())[1]
    assert window["skipped_steps"] == 1
    assert window["loss"] == np.mean([np.float32(1 / step) for step in (6, 8, 9, 10)], dtype=np.float64)


def test_the_norm_is_the_mean_of_the_steps_that_were_applied():
    plan, found = make_plan(Config(batch_size=10, epochs=1, log_every_steps=10), 100, 1), RunMetrics()
    monitor = LossMonitor(Config(), "float32", lambda step: [step])
    norms = np.where(np.arange(1, 11) == 7, np.inf, np.arange(1, 11)).astype(np.float32)  # the loss of step 7 is NaN
    (line,) = found.update(records(0, 10)._replace(gradient_norm=norms), 0, plan, monitor)
    assert line["gradient_norm"] == (55 - 7) / 9
    assert "gradient_norm" not in lines(())[0]


def test_best_and_patience():
    plan, progress = make_plan(Config(), 1000, 1), RunMetrics()
    config = Config(patience=2, target_accuracy=0.9)
    best = [progress.note_evaluation(step, Evaluation(1.0, accuracy, 10, ()), plan)[1]
            for step, accuracy in enumerate((0.5, 0.5, 0.6, 0.4))]
    assert best == [True, False, True, False] and progress.best["step"] == 2
    assert progress.ended_early(config, 3, "test") is None
    progress.note_evaluation(9, Evaluation(1.0, 0.6, 10, ()), plan)
    assert (progress.ended_early(config, 9, "validation")
            == "no better validation accuracy in 2 evaluations (--patience=2)")
    # A run that goes on from later steps, with another --patience, is judged by its next evaluation.
    assert progress.ended_early(Config(patience=1, target_accuracy=0.1), 10, "test") is None
    progress.note_evaluation(10, Evaluation(1.0, 0.9, 10, ()), plan)
    assert "--target_accuracy=0.9" in progress.ended_early(config, 10, "test")


def test_a_run_out_of_time_goes_on_with_more_hours():
    metrics = RunMetrics()
    metrics.note_out_of_time(7, Config(max_hours=0.5))
    again = RunMetrics.from_json(metrics.to_json())
    assert again.ended_early(Config(max_hours=0.5), 7, "test") == "--max_hours=0.5 were over"
    assert again.ended_early(Config(max_hours=0.25), 7, "test") == "--max_hours=0.25 were over"
    assert again.ended_early(Config(max_hours=1.0), 7, "test") is None
    assert again.ended_early(Config(), 7, "test") is None
    assert again.ended_early(Config(max_hours=0.5), 8, "test") is None
