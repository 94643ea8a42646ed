"""The records of a run in JSON: its settings at the start, a checkpoint's metadata, its result at the end."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from trainer import __version__
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.plan import Job
    from trainer.train.metrics import RunMetrics


def resolved_settings(job: Job) -> dict[str, Any]:
    """What config.json holds in addition to the settings: every `auto` resolved, versions, data. All of it is JSON."""
    runtime, data = job.runtime, job.data
    return {"strategy": type(runtime.strategy).__name__, "devices": list(runtime.devices),
            "replicas": runtime.replicas, "workers": runtime.workers, "precision": runtime.precision,
            "xla": "on" if runtime.xla else "off", "export": list(job.config.formats or ("none",)),
            "total_steps": job.plan.total_steps, "microbatch": job.plan.batch_size // job.plan.passes,
            "versions": {"lockstep": __version__, "tensorflow": tf.__version__, "keras": keras.__version__,
                         "numpy": np.__version__},
            "data": {"name": data.name, "fingerprint": data.fingerprint, "classes": list(data.classes),
                     "image_shape": list(data.image_shape), "held_back": data.held_back,
                     **{f"{name}_examples": split.size for name, split in data.splits.items()},
                     "parts": data.parts}}


def checkpoint_metadata(job: Job, metrics: RunMetrics, *, step: int, wall_seconds: float,
                        computed_on: Mapping[str, Any], autotune: str | None, bit_versions: Mapping[str, int],
                        report_sizes: Mapping[str, Any],
                        initialized_from: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a checkpoint's manifest holds in addition to the state's files.

    Args:
        job: What the run trains.
        metrics: The metrics at `step`.
        step: Steps done.
        wall_seconds: Time of the run so far, over all starts.
        computed_on: As `Runtime.record` returns it.
        autotune: The hash that `AutotuneFile.keep` returned.
        bit_versions: Name to version of what decides bits.
        report_sizes: The valid sizes of the reports, as `Reporter.flush` returned them.
        initialized_from: The source of the weights that the run began with.

    Returns:
        A dict of what JSON can hold.
    """
    evaluated = metrics.evaluation
    return {"epoch": job.plan.epoch(step), "data": job.data.fingerprint, "computed_on": computed_on,
            "autotune": autotune, "precision": job.runtime.precision, "bits": bit_versions,
            "settings": json.loads(job.config.to_json()), "decided": _decided(job),
            "initialized_from": initialized_from,
            "evaluation": evaluated if evaluated and evaluated["step"] == step else None,
            "progress": dataclasses.replace(metrics, wall_seconds=wall_seconds).to_json(), "reports": report_sizes}


def _decided(job: Job) -> dict[str, int]:
    """What the run decided once, where its settings leave it to the run; later starts keep it."""
    return {"microbatch": job.plan.batch_size // job.plan.passes} if job.config.microbatch == "auto" else {}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came out of a run.

    Args:
        step: Steps done.
        exported_step: The step of the weights that were exported.
        selected_on: The split whose accuracy decided what is exported or when the run ended; None if none did.
        test_accuracy: The accuracy of the exported weights on the test split; None if there is no test split.
        skipped_steps: How many of the steps had an update that was not applied.
        wall_seconds: Time of the run, over all starts.
        exports: Format to what was measured of the export, as `Exports` holds it.
        export_failures: Format to why it isn't there.
        goodput: The share of the run's time in steps that count, as `goodput` returns it.
        initialized_from: The source of the weights that the run began with; None for random ones.
        quality: The figures of the exported weights' predictions, as `figures_of` returns them, and temperature.
    """

    step: int
    exported_step: int
    selected_on: str | None
    test_accuracy: float | None
    skipped_steps: int
    wall_seconds: float
    exports: Mapping[str, Any]
    export_failures: Mapping[str, str]
    goodput: Mapping[str, Any]
    quality: Mapping[str, Any]
    initialized_from: Mapping[str, Any] | None = None


def make_result(job: Job, metrics: RunMetrics, outcome: Outcome) -> dict[str, Any]:
    """What result.json holds.

    Args:
        job: What the run trained.
        metrics: The metrics at the end, after at least one evaluation.
        outcome: What came out.

    Returns:
        A dict of what JSON can hold.
    """
    evaluation, speed = metrics.evaluation, metrics.images_per_second
    assert evaluation is not None and metrics.best is not None  # every run ends with an evaluation
    best = {name: value for name, value in metrics.best.items() if name != "class_accuracy"}
    best["loss"] = _finite(best["loss"])
    evaluated = job.data.evaluated_name
    return {"eval_accuracy": evaluation["accuracy"], "eval_loss": _finite(evaluation["loss"]), "eval_split": evaluated,
            "selected_on": outcome.selected_on, "test_accuracy": outcome.test_accuracy, "step": outcome.step,
            "exported_step": outcome.exported_step, "epoch": job.plan.epoch(outcome.step), "best": best,
            "images_per_second": speed and round(speed, 1), "replicas": job.runtime.replicas,
            "wall_seconds": round(outcome.wall_seconds, 1), "skipped_steps": outcome.skipped_steps,
            "bad_records": job.data.bad.count,
            "class_accuracy": dict(zip(job.data.classes, evaluation["class_accuracy"], strict=True)),
            "ended_early": metrics.ended_early(job.config, outcome.step, evaluated), "exports": outcome.exports,
            "export_failures": outcome.export_failures, "initialized_from": outcome.initialized_from,
            "goodput": outcome.goodput, "quality": outcome.quality}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None  # JSON knows no NaN
