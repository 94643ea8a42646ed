"""What a run comes to: the object of result.json, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class Result(TypedDict):
    """What result.json holds, and `train` returns: a dict, whose keys are the file's.

    Accuracies are shares from 0 to 1, losses are cross-entropies in nats, each the mean over all examples of a split.

    Attributes:
        eval_accuracy, eval_loss: Of the last evaluation; the loss is None if it isn't finite.
        eval_split: The split that was evaluated: validation or test.
        selected_on: The split whose accuracy decided what is exported or when the run ended; None if none did.
        test_accuracy: Of the exported weights on the test split; None if there is no test split.
        step, exported_step: Steps done, and the step of the exported weights.
        epoch: Epochs done, a fraction.
        best: The best evaluation: step, accuracy, loss and more.
        images_per_second: Training speed over all replicas; None if it was not measured.
        replicas: Number of replicas.
        wall_seconds: Time of the run, over all its starts.
        skipped_steps: Steps whose gradients weren't finite, and whose update was left out.
        bad_records: Images that couldn't be read and were left out.
        class_accuracy: Class to accuracy, of the last evaluation.
        ended_early: Why the run ended before its last step, in a few words; None if it didn't.
        exports: Format to path (below model_dir), accuracy, examples, bytes and latency of what was exported.
        export_failures: Format to why it isn't there.
        initialized_from: The source of the weights that the run began with; None for random ones.
        goodput: The share of the time in steps that count, and the seconds by cause.
        quality: Figures of the exported weights' predictions: intervals, calibration, each class's recall and more.
    """

    eval_accuracy: float
    eval_loss: float | None
    eval_split: str
    selected_on: str | None
    test_accuracy: float | None
    step: int
    exported_step: int
    epoch: float
    best: Mapping[str, Any]
    images_per_second: float | None
    replicas: int
    wall_seconds: float
    skipped_steps: int
    bad_records: int
    class_accuracy: Mapping[str, float | None]
    ended_early: str | None
    exports: Mapping[str, Mapping[str, Any]]
    export_failures: Mapping[str, str]
    initialized_from: Mapping[str, Any] | None
    goodput: Mapping[str, Any]
    quality: Mapping[str, Any]
