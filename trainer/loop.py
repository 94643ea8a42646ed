"""A run from its first step to its exports: the page to read first.

    data, plan, state ← configuration
    resume from the newest sound checkpoint, if there is one
    until the last step:
        agree with all workers on what comes next
        evaluate, where an epoch ends   keep the best
        save, when it is time           or when a user wants the run to stop
        N steps on the device           N so that a call takes about a second
        report them
    export, and measure what was exported
"""

from __future__ import annotations

import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any, NoReturn

from trainer.data.augment.preview import take_samples
from trainer.data.dataset import load
from trainer.distributed import collectives
from trainer.distributed.agreement import Decision, agree
from trainer.ending.finish import finish_together
from trainer.errors import Stopped, catching
from trainer.export.selection import require_calibration_data
from trainer.plan import Job, make_plan, rate_sentence, with_batch_size
from trainer.run import Run
from trainer.train import microbatch as microbatches

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.data.dataset import Dataset
    from trainer.distributed.runtime import Runtime
    from trainer.process.signals import StopRequest
    from trainer.process.watchdog import Watchdog
    from trainer.reporting.console import Console
    from trainer.reporting.timeline.record import Timeline
    from trainer.storage.model_dir import ModelDir


def train_and_evaluate(config: Config, runtime: Runtime, *, model_dir: ModelDir, console: Console, stop: StopRequest,
                       watchdog: Watchdog, timeline: Timeline) -> dict[str, Any] | None:
    """Trains as configured, and resumes where an earlier start stopped.

    Args:
        config: The run's settings.
        runtime: The devices.
        model_dir: The run's folder, claimed.
        console: The terminal and log.txt.
        stop: Entered; a signal becomes its request.
        watchdog: Entered; ends a run that makes no progress.
        timeline: Entered; is told of phases and saves.

    Returns:
        What result.json holds; None on workers that aren't the chief.

    Raises:
        LockstepError: a subclass for each way to end other than well.
    """
    with stop.nothing_to_save("starting"):
        timeline.enter("reading data")
        job = read_data(config, runtime, model_dir=model_dir, console=console, watchdog=watchdog)
        run = Run(job, model_dir=model_dir, console=console, stop=stop, watchdog=watchdog, timeline=timeline)
    with contextlib.closing(run), run.trackers:
        train(run)
        return finish_together(run)


def read_data(config: Config, runtime: Runtime, *, model_dir: ModelDir, console: Console, watchdog: Watchdog) -> Job:
    """Reads the data and makes the plan, on all workers or on none."""
    with watchdog.phase("reading the data"):
        with collectives.all_or_none(runtime):
            data = load(config)
        collectives.require_same(runtime, {f"data: {name}": value for name, value in data.fingerprints().items()})
    known = with_batch_size(config, data.train.size)
    with watchdog.phase("trying what fits into memory"):
        microbatch = microbatches.decide(known, data, runtime, functools.partial(model_dir.decided, "microbatch"))
        with collectives.all_or_none(runtime):
            plan = make_plan(known, data.train.size, runtime.replicas, microbatch)
            require_calibration_data(config, data)
    console.say(f"{runtime.sentence()}; {plan.sentence()}")
    for line in (*runtime.advice(), *filter(None, [rate_sentence(config, plan)])):
        console.say(line)
    if config.sync_batch_norm and runtime.replicas > 1:
        console.say("batch norm takes its moments over all replicas: XLA doesn't compile the passes over the model")
    console.say(data.sentence())
    for warning in data.warnings:
        console.warn(warning)
    for warning in plan.warnings(config):
        console.warn(warning)
    _warn_of_bad(data, console)
    return Job(known, plan, runtime, data)


def train(run: Run) -> None:
    """Trains and evaluates until the last step, or until the run ends early."""
    if not run.is_done:
        run.console.start(run.step, run.job.plan.total_steps, name=run.model_dir.root.resolve().name,
                          best=run.metrics.best, evaluated=run.job.data.evaluated_name)
    known_bad = run.job.data.bad.here  # all workers found these when they read the data
    while True:
        run.timeline.step = run.step
        decision = _agree(run, known_bad)  # the same on all workers
        if decision.out_of_time and not run.is_done:
            run.metrics.note_out_of_time(run.step, run.job.config)
        if decision.stop:
            _save_and_stop(run)  # raises Stopped
        if run.evaluation_due:
            _evaluate(run)
        elif run.is_done:
            break
        else:
            if decision.save:
                run.save()
            _train_steps(run, decision.num_steps)
    run.save()
    with run.watchdog.phase("waiting for the last save"), run.timeline.phase("saving"):
        with collectives.all_or_none(run.job.runtime):
            run.finish_reports()
        run.console.stop()
        with collectives.all_or_none(run.job.runtime):
            run.checkpoints.wait()


def _agree(run: Run, known_bad: int) -> Decision:
    """What comes next: the same `Decision` on all workers.

    Args:
        run: The run.
        known_bad: How many bad examples every worker found when it read the data.

    Raises:
        LockstepError: on all workers, if something failed on one.
    """
    data, timer, stragglers = run.job.data, run.inner_loop.timer, run.inner_loop.stragglers
    bad = data.bad.here - known_bad
    # A state in a streak of skipped steps must not replace older, better checkpoints.
    due = run.checkpoints.is_due(run.step) and not run.metrics.skipped_in_a_row
    num_steps = min(timer.steps, max(1, run.job.plan.next_stop(run.step) - run.step))
    num_steps = run.profile.limit(run.step, num_steps)
    with catching() as caught:
        run.checkpoints.check()  # raises also what else failed beside the training
        data.bad.check()
        if run.export_trial and run.inner_loop.is_compiled:
            for warning in run.export_trial.check():
                run.console.warn(warning)
    local = Decision(bool(run.stop.signal), num_steps, due, run.is_out_of_time, bad, stragglers.local())
    decision = agree(run.job.runtime, local, caught.error)
    data.bad.elsewhere = decision.bad_examples - bad
    _warn_of_bad(data, run.console)
    run.watchdog.reset()
    slow = stragglers.update(decision.own_microseconds)
    if slow and run.reporter:
        run.console.warn(slow)
    return decision


def _train_steps(run: Run, num_steps: int) -> None:
    """Calls the device loop once; the first call of a start makes the loop, and compiles."""
    if run.inner_loop.is_compiled:
        run.timeline.enter("training")
        with run.profile.around(run.step, num_steps):
            report = run.inner_loop.run(num_steps)
    else:
        run.timeline.enter("compiling")
        if run.step == 0 and run.reporter:
            with run.failures:
                run.reporter.introduce(run.job.config, take_samples(run.job), run.state.model)
        run.inner_loop.compile()
        with run.compiling():
            report = run.inner_loop.run(num_steps)
    if run.reporter:
        with run.failures:
            run.reporter.begin(report)  # the next call may begin meanwhile


def _evaluate(run: Run) -> None:
    """Evaluates the model, reports the evaluation, and keeps the best checkpoint."""
    began = time.monotonic()
    run.timeline.enter("evaluating")
    with contextlib.nullcontext() if run.evaluator.is_compiled else run.compiling():
        evaluation = run.evaluator.run(should_stop=functools.partial(_stop_requested, run))
    if not evaluation:
        _save_and_stop(run)
    seconds = time.monotonic() - began
    record, is_best = run.metrics.note_evaluation(run.step, evaluation, run.job.plan)
    record["learning_rate"] = float(run.state.optimizer.learning_rate)
    record["images_per_second"] = round(evaluation.examples / seconds, 1)
    if run.reporter:
        with run.failures:
            run.reporter.evaluation(record, is_best, run.state.weights_norm())
    _report_predictions(run, is_best)
    if run.checkpoints.saved_at == run.step:
        run.checkpoints.update_manifest(run.step)
    elif is_best:
        run.save()
    run.inner_loop.skip_time()


def _report_predictions(run: Run, is_best: bool) -> None:
    """Shows what the model said of each example, and writes it for weights that may be exported, on the chief."""
    data = run.job.data
    keeps = run.is_done or (is_best and run.job.exports_best)
    predictions = run.evaluator.predictions(split=data.evaluated_name, step=run.step, classes=data.classes,
                                            probabilities=keeps)
    if run.reporter:
        with run.failures:
            run.reporter.predictions(predictions, run.evaluated_predictions if keeps else None, is_best=is_best,
                                     is_last=run.is_done)


def _stop_requested(run: Run) -> bool:
    """Whether a stop was requested on any worker; all workers call it together, between calls of the evaluation."""
    (requests,) = collectives.all_reduce_ints(run.job.runtime, [int(bool(run.stop.signal))])
    run.watchdog.reset("evaluating")
    run.timeline.enter("evaluating")  # the first call compiled
    return requests > 0


def _save_and_stop(run: Run) -> NoReturn:
    """Saves the state.

    Raises:
        Stopped: once the state is saved.
    """
    with run.watchdog.phase("saving"), run.timeline.phase("saving"):
        run.timeline.saving()
        collectives.require_equal_states(run.job.runtime, run.state)
        with collectives.all_or_none(run.job.runtime):
            run.finish_reports()
            run.checkpoints.wait()
            if run.checkpoints.saved_at != run.step:
                run.checkpoints.save(run.step)
                run.checkpoints.wait()
        collectives.final_barrier(run.job.runtime)
    why = run.stop.signal or "another worker was"
    if run.job.config.dry_run:
        raise Stopped(f"asked to stop ({why}); a dry run keeps nothing", "run the same command again")
    raise Stopped(f"asked to stop ({why}); step {run.step:,} is saved in {run.model_dir.checkpoints}",
                  "run the same command again; it goes on from there")


def _warn_of_bad(data: Dataset, console: Console) -> None:
    """Names the images and files that could not be used; the first 10 of a start."""
    for line in data.bad.news():
        console.warn(f"left out: {line}")
