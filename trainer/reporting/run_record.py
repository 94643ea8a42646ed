"""What a run says of itself: its resolved settings at the start; at the end exports, result.json and pictures."""

import json
import math

import keras
import numpy as np
import tensorflow as tf

from trainer import __version__
from trainer.errors import Stopped
from trainer.export import exporter
from trainer.storage import durable


def resolved(config, runtime, plan, data):
    """What became of the settings, for config.json: a dict of what JSON can hold."""
    return {"strategy": type(runtime.strategy).__name__, "devices": list(runtime.devices),
            "replicas": runtime.replicas, "workers": runtime.workers, "precision": runtime.precision,
            "xla": "on" if runtime.xla else "off", "total_steps": plan.total_steps,
            "versions": {"lockstep": __version__, "tensorflow": tf.__version__, "keras": keras.__version__,
                         "numpy": np.__version__},
            "data": {"name": data.name, "fingerprint": data.fingerprint, "classes": list(data.classes),
                     "image_shape": list(data.image_shape), "train_examples": data.train.size,
                     "test_examples": data.test.size, "parts": data.parts}}


def finish(run, samples):
    """Exports the model, measures the exports, writes result.json and the report.

    Args:
        run: The `loop.Run` that has done its last step.
        samples: A function that takes the run's `Samples`.

    Returns:
        What result.json holds.
    """
    early = run.progress.ended_early(run.config, run.step)
    if early:
        run.console.say(f"ended at step {run.step:,}: {early}")
    exports = _export(run) if run.config.export != ("none",) else {}
    evaluation, speed = run.progress.evaluation, run.progress.images_per_second
    best = {name: value for name, value in run.progress.best.items() if name != "class_accuracy"}
    best["loss"] = _finite(best["loss"])
    result = {"eval_accuracy": evaluation["accuracy"], "eval_loss": _finite(evaluation["loss"]),
              "step": run.step, "epoch": run.plan.epoch(run.step), "best": best,
              "images_per_second": speed and round(speed, 1), "replicas": run.runtime.replicas,
              "wall_seconds": round(run.wall_seconds(), 1),
              "skipped_steps": int(run.state.skipped.numpy()), "bad_records": run.data.bad.count,
              "class_accuracy": dict(zip(run.data.classes, evaluation["class_accuracy"], strict=True)),
              "ended_early": early, "exports": exports}
    durable.write_durably(run.model_dir.result, json.dumps(result, indent=2))
    with run.nothing_to_save("drawing the curves"):
        run.reporter.draw(samples())
    return result


def _export(run):
    run.console.say(f"exporting {', '.join(run.config.export)}, and measuring what was exported")
    # GPUs and lower precisions answer a few pictures differently: there the copy on the CPU is the measure.
    plain = run.runtime.precision == "float32" and run.runtime.kind.exact_float32
    reached = run.progress.evaluation["accuracy"] if plain else None
    run.model_dir.require_lock()

    def heed():
        run.deadline.progress("exporting", run.deadline.LONGER)
        if run.wish.signal:
            raise Stopped(f"asked to stop ({run.wish.signal}) while exporting; the training is done and saved",
                          "run the same command again; it exports then") from None

    with run.nothing_to_save("exporting"):
        return exporter.export(run.config, run.data, run.state.model, reached, run.model_dir.export,
                             run.runtime.devices[0], run.runtime.kind, heed)


def _finite(number):
    return number if math.isfinite(number) else None  # JSON knows no NaN
