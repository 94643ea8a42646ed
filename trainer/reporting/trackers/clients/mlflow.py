"""MLflow: MLFLOW_TRACKING_URI says where, else its own default below the folder that the run was started in."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.reporting.trackers.tracker import Point, TrackedRun

HINT = "check that the server of MLFLOW_TRACKING_URI runs, and MLFLOW_TRACKING_TOKEN or _USERNAME and _PASSWORD"
_EXPERIMENT = "lockstep"
_MOST_METRICS = 1000  # of a request, by MLflow's rule; and 100 parameters or tags
_MOST_PARAMETERS = 100
_LAST = "epoch"  # every point has it
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}  # a server that is gone


def connect(run: TrackedRun) -> MlflowRun:
    """Opens the run in MLflow, or makes it.

    Args:
        run: The run. Without an id, MLFLOW_RUN_ID names one; else there is a new one in MLFLOW_EXPERIMENT_ID or
            MLFLOW_EXPERIMENT_NAME.
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    mlflow: Any = importlib.import_module("mlflow")  # an extra
    client = mlflow.MlflowClient()
    found = _find(client, run.tracker_id or os.environ.get("MLFLOW_RUN_ID"))
    if found is None:
        found = client.create_run(_experiment(client), run_name=run.name, tags={"mlflow.source.name": "lockstep"})
    return MlflowRun(client, found, run.settings, mlflow.get_tracking_uri())


def _find(client: Any, run_id: str | None) -> Any:
    """A run that is there and not deleted, or None."""
    if not run_id:
        return None
    try:
        found = client.get_run(run_id)
    except _part("exceptions").MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return found if found.info.lifecycle_stage == "active" else None


def _experiment(client: Any) -> str:
    if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return number
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
    if not (found := client.get_experiment_by_name(name)):
        try:
            return client.create_experiment(name)
        except _part("exceptions").MlflowException:  # another run made it meanwhile
            found = client.get_experiment_by_name(name)
            if not found:
                raise
    return found.experiment_id


class MlflowRun:
    """A run in MLflow; a `Tracker`.

    Args:
        client: An `MlflowClient`.
        found: The run there.
        settings: As in `TrackedRun`.
        uri: Of the tracking server or store.

    Attributes:
        id, place: As in `Tracker`.
    """

    def __init__(self, client: Any, found: Any, settings: Mapping[str, Any], uri: str) -> None:
        self._client, self.id = client, found.info.run_id
        web = f"/#/experiments/{found.info.experiment_id}/runs/{self.id}"
        self.place = f"{uri.rstrip('/')}{web}" if uri.startswith("http") else f"{uri}, run {self.id}"
        client.update_run(self.id, status="RUNNING")
        self._note(found.data, settings)

    def _note(self, known: Any, settings: Mapping[str, Any]) -> None:
        """Sets the parameters; MLflow keeps them as they were first, and what changed since is a tag."""
        entities = _part("entities")
        texts = {name: str(value) for name, value in settings.items()}
        new = [entities.Param(name, text) for name, text in texts.items() if name not in known.params]
        changed = [entities.RunTag(f"changed/{name}", text) for name, text in texts.items()
                   if known.params.get(name, text) != text]
        for part in _parts(new, _MOST_PARAMETERS):
            self._client.log_batch(self.id, params=part)
        for part in _parts(changed, _MOST_PARAMETERS):
            self._client.log_batch(self.id, tags=part)

    def last_step(self) -> int:
        """The last step that MLflow has; -1 if it has none."""
        return max((metric.step for metric in self._client.get_metric_history(self.id, _LAST)), default=-1)

    def log(self, points: Sequence[Point]) -> None:
        """Takes points; a request has whole steps, and is there as a whole or not at all in MLflow's databases."""
        metric, batch = _part("entities").Metric, list[Any]()
        for point in points:
            # What tells which steps are there comes last, for stores that write one after the other.
            names = sorted(point.metrics, key=_LAST.__eq__)
            metrics = [metric(name, point.metrics[name], round(point.time * 1000), point.step) for name in names]
            if len(batch) + len(metrics) > _MOST_METRICS:
                self._client.log_batch(self.id, metrics=batch)
                batch = []
            batch += metrics
        self._client.log_batch(self.id, metrics=batch)

    def result(self, numbers: Mapping[str, float], words: Mapping[str, str], step: int, files: Sequence[Path]) -> None:
        """Takes the result as metrics and tags named result/…, and the files as artifacts."""
        known = self._client.get_run(self.id).data.metrics
        for name, value in numbers.items():
            if known.get(f"result/{name}") != value:
                self._client.log_metric(self.id, f"result/{name}", value, step=step)
        for name, text in words.items():
            self._client.set_tag(self.id, f"result/{name}", text)
        for path in files:
            self._client.log_artifact(self.id, str(path), "report")

    def close(self, code: int | None) -> None:
        """Ends the run: FINISHED, FAILED, or KILLED where it was stopped or killed."""
        status = {0: "FINISHED", 75: "KILLED", None: "KILLED"}.get(code, "FAILED")
        self._client.set_terminated(self.id, status)


def _part(name: str) -> Any:
    """A module of MLflow's."""
    return importlib.import_module(f"mlflow.{name}")


def _parts(items: list[Any], most: int) -> Iterator[list[Any]]:
    return (items[start:start + most] for start in range(0, len(items), most))
