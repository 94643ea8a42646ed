"""The end of a run: exports the selected weights, measures them, and says how good they are."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from typing import TYPE_CHECKING, Any

from trainer.data.augment.preview import take_images, take_samples
from trainer.distributed import collectives
from trainer.errors import Stopped
from trainer.export import exporter
from trainer.export.card.model_card import ModelCard
from trainer.export.measure import Measurement
from trainer.export.selection import Selection, accuracy_of, predictions_of, select, selected_on, temperature_of
from trainer.quality.figures import figures_of
from trainer.reporting.page.report import pictures_of, worst_mistakes
from trainer.reporting.run_record import Outcome, make_result
from trainer.reporting.summary import summary
from trainer.reporting.timeline.goodput import goodput, starts_of
from trainer.storage import durable

if TYPE_CHECKING:
    from trainer.plan import Job
    from trainer.quality.predictions import Predictions
    from trainer.reporting.page.pictures import Picture
    from trainer.run import Run


def finish_together(run: Run) -> dict[str, Any] | None:
    """Lets the chief finish the run while the other workers wait; returns the result, or None on the others."""
    result, runtime = None, run.job.runtime
    if runtime.is_chief:
        patience, waiting = run.watchdog.LONGER, contextlib.nullcontext()
    else:  # the chief has a watchdog of its own, and TensorFlow raises an error if the chief is lost
        patience, waiting = math.inf, run.nothing_to_save("waiting for the exports")
    run.timeline.enter("exporting")
    with run.watchdog.phase("exporting", patience), waiting:
        with collectives.all_or_none(runtime):
            if runtime.is_chief:
                result = _finish(run)
        collectives.final_barrier(runtime)
    return result


def _finish(run: Run) -> dict[str, Any]:
    """Exports the selected weights, measures them, writes result.json and the report.

    Raises:
        StorageError: after all of that, if a format failed.
    """
    job, config = run.job, run.job.config
    assert run.reporter is not None  # the chief
    if run.ended_early:
        run.console.say(f"ended at step {run.step:,}: {run.ended_early}")
    exports = exporter.Exports({}, {})
    with run.nothing_to_save("exporting"):
        measurement = Measurement(job, functools.partial(_raise_if_stopped, run))
        if run.export_trial:
            run.export_trial.close()
        selection = select(job, run.state.evaluated, run.metrics, run.checkpoints)
        predictions = predictions_of(selection, job, measurement, run.model_dir.predictions, measurement.split_name)
        accuracy = accuracy_of(selection, job, predictions)
        temperature = _temperature(run, selection, measurement)
        quality = {**figures_of(predictions, temperature), "temperature": temperature}
        if run.own_metrics and config.metrics:
            quality["metrics"] = run.own_metrics.of(predictions)
        if config.formats:
            which = f" of step {selection.step:,}, the best" if selection.step != run.step else ""
            run.console.say(f"exporting {', '.join(config.formats)}{which}, and measuring what was exported")
            run.model_dir.require_lock()
            exports = exporter.export(job, selection.model, measurement, accuracy, folder=run.model_dir.export,
                                      step=selection.step,
                                      temperature=temperature if config.calibrate_export else None,
                                      card=ModelCard(run.model_dir.read_config(), selection.step, quality,
                                                     selected_on(job), run.initialized_from))
    outcome = Outcome(step=run.step, exported_step=selection.step, selected_on=selected_on(job),
                      test_accuracy=None if job.data.test is None else accuracy,
                      skipped_steps=int(run.state.skipped.numpy()), wall_seconds=run.wall_seconds,
                      exports=exports.results, export_failures=exports.failures,
                      goodput=goodput(starts_of(run.timeline.lines()), _input_share(run)),
                      initialized_from=run.initialized_from, quality=quality)
    result = make_result(job, run.metrics, outcome)
    durable.write_durably(run.model_dir.result, json.dumps(result, indent=2))
    run.timeline.enter("reporting")
    with run.nothing_to_save("drawing the report"):
        run.reporter.draw(take_samples(job), result, starts_of(run.timeline.lines()), _mistakes(job, predictions))
    run.trackers.result(run.step, run.reporter.flush()[0]["metrics"])
    if not config.dry_run:
        run.console.say(summary(run.model_dir, result))
    exports.require_all()
    return result


def _input_share(run: Run) -> float | None:
    """The share of the time of training in which steps waited for batches; None where it isn't known."""
    seconds = run.metrics.train_seconds
    return run.metrics.input_seconds / seconds if seconds and not run.job.runtime.kind.cuda else None


def _mistakes(job: Job, predictions: Predictions) -> list[Picture]:
    """The worst mistakes, with their images."""
    split, rows = job.data.splits[predictions.split], worst_mistakes(predictions)
    if not len(rows):
        return []
    ids = predictions.ids[rows]
    return pictures_of(predictions, rows, take_images(split, ids), [split.name_of(example) for example in ids.tolist()])


def _temperature(run: Run, selection: Selection, measurement: Measurement) -> float | None:
    """The temperature that calibrates the selected weights; None where there is no validation split to fit it on."""
    if run.job.data.validation is None:
        return None
    return temperature_of(predictions_of(selection, run.job, measurement, run.evaluated_predictions, "validation"))


def _raise_if_stopped(run: Run) -> None:
    """Tells the watchdog that the exports make progress, and ends them if a stop was requested.

    Raises:
        Stopped: if it was.
    """
    run.watchdog.reset("exporting", run.watchdog.LONGER)
    if run.stop.signal:
        raise Stopped(f"asked to stop ({run.stop.signal}) while exporting; the training is done and saved",
                      "run the same command again; it exports then") from None
