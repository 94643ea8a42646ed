"""Checkpoints that are durable and verified before use; a run falls back from a damaged one to the one before.

    checkpoints/step-00000390/state.index, state.data-…     TensorFlow's tensor bundle: name → value
    checkpoints/step-00000390/manifest.json                 the SHA-256 of each file; written last

A checkpoint counts from the moment at which its manifest is renamed to its name. Reading verifies every hash, name and
shape before any variable changes.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.errors import DataError, StorageError, UsageError, first_few
from trainer.process.tf_import import reason, tf
from trainer.storage import durable
from trainer.storage.manifest import peek_manifest, read_manifest, remove_sealed, seal, write_manifest

_NAME = re.compile(r"step-(\d{8,})")
_MARGIN = 2**20  # bytes for manifests, metrics and folders, in addition to the values
_Manifest = dict[str, Any]


def _allow() -> None:
    """The guard of checkpoints whose folder needs none."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: The run's `checkpoints/`.
        keep: Number of the newest checkpoints that are kept; the best one is kept, too.
        guard: Called before a checkpoint counts; may raise.
    """

    def __init__(self, folder: Path | str, keep: int = 3, guard: Callable[[], object] = _allow) -> None:
        self.folder, self._keep, self._guard = Path(folder), keep, guard

    def steps(self) -> list[int]:
        """The steps of the checkpoints that have a manifest, damaged ones included, in order."""
        return sorted(step for step, path in self._folders() if (path / "manifest.json").exists())

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(self, values: Mapping[str, Any], metadata: Mapping[str, Any], reports: Collection[Path] = ()) -> None:
        """Writes a checkpoint, and removes those that are no longer kept.

        Args:
            values: Name to tensor on the host, as `TrainState.snapshot` returns them.
            metadata: What the manifest holds in addition to the step and the files' hashes: a JSON object.
            reports: Files to which the metadata refer; they are made durable before the manifest.

        Raises:
            StorageError: if there is no room for the checkpoint, or it can't be written.
        """
        step = int(values["step"])
        path = self.path(step)
        if self._read(step)[0]:
            self.update_manifest(step, metadata, reports)  # the state of a step can't change
            return
        remove_sealed(path)
        self.require_room(values, f"the checkpoint of step {step:,}")
        path.mkdir(parents=True)
        try:
            names = list(values)
            with tf.device("CPU:0"):
                tf.raw_ops.SaveV2(prefix=str(path / "state"), tensor_names=names, shape_and_slices=[""] * len(names),
                                  tensors=[values[name] for name in names])
            durable.flush_all(reports)
            self._guard()
            seal(path, {"step": step, **metadata})
        except (tf.errors.OpError, OSError) as error:
            shutil.rmtree(path, ignore_errors=True)
            cause = reason(error) if isinstance(error, tf.errors.OpError) else error.strerror
            raise StorageError(f"the checkpoint of step {step:,} could not be written: {cause}",
                               "make room or repair the folder; the checkpoint before it is kept") from None
        self._remove_old()

    def update_manifest(self, step: int, metadata: Mapping[str, Any], reports: Collection[Path] = ()) -> None:
        """Adds to a checkpoint's manifest what became known about its step later, such as its evaluation.

        Args:
            step: The step of the checkpoint.
            metadata, reports: As in `save`.

        Raises:
            StorageError: if the manifest is damaged by now.
        """
        manifest, fault = peek_manifest(self.path(step))
        if manifest is None:
            raise StorageError(f"checkpoint of step {step:,} was damaged while the run was going on: {fault}",
                               "check what else writes into the folder, then run the same command again")
        durable.flush_all(reports)
        write_manifest(self.path(step), {**manifest, **metadata})
        self._remove_old()

    def require_room(self, values: Mapping[str, Any], what: str) -> None:
        """Checks whether a checkpoint of `values` fits on the disk.

        Args:
            values: Name to tensor or variable.
            what: What is to be written, as a user reads it.

        Raises:
            StorageError: if the checkpoint doesn't fit.
        """
        durable.require_room(self.folder, sum(_bytes(value) for value in values.values()) + _MARGIN, what)

    def newest_sound(self, warn: Callable[[str], object]) -> _Manifest | None:
        """Finds the newest checkpoint that is not damaged.

        Args:
            warn: Called with a sentence for each damaged checkpoint that is newer.

        Returns:
            The checkpoint's manifest, or None if there are no checkpoints.

        Raises:
            StorageError: if there are checkpoints and all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            manifest, fault = self._read(step)
            if manifest:
                return manifest
            warn(f"checkpoint of step {step:,} is damaged: {fault}; it is kept, and the one before it is tried")
        if steps:
            which = f"all {len(steps)} checkpoints" if len(steps) > 1 else "the only checkpoint"
            raise StorageError(f"{which} in {self.folder} {'are' if len(steps) > 1 else 'is'} damaged",
                               "restore the folder from a backup, or start anew with another --model_dir")
        return None

    def best_step(self) -> int | None:
        """The step of the best evaluated checkpoint, or None. The earlier one wins a tie."""
        scores = {step: accuracy for step in self.steps() if (accuracy := self._accuracy(step)) is not None}
        # The steps are in order, and the first of equals is the maximum.
        return max(scores, key=scores.__getitem__, default=None)

    def find(self, name: str) -> _Manifest:
        """Finds and verifies the checkpoint that a user names.

        Args:
            name: latest, best, or a step.

        Returns:
            The checkpoint's manifest.

        Raises:
            DataError: if there is no such checkpoint.
            StorageError: if the checkpoint is damaged.
        """
        step = {"latest": max(self.steps(), default=None), "best": self.best_step()}.get(name, name)
        steps = first_few(self.steps()[::-1]) or "none"
        if step is None or not str(step).isdecimal() or int(step) not in self.steps():
            why = ": none of them was evaluated" if name == "best" and self.steps() else ""
            raise DataError(f"there is no checkpoint {name!r} in {self.folder}{why}; there are, the newest first: "
                            f"{steps}",
                            "name latest or one of these steps with --checkpoint" if self.steps() else
                            "train first, or name the --model_dir of a run that has checkpoints")
        manifest, fault = self._read(int(step))
        if not manifest:
            raise StorageError(f"checkpoint of step {step} is damaged: {fault}",
                               f"name another with --checkpoint; there are, the newest first: {steps}")
        return manifest

    def restore(self, variables: Mapping[str, tf.Variable], manifest: Mapping[str, Any]) -> None:
        """Assigns the values of a verified checkpoint to variables: to all of them, or to none.

        Args:
            variables: Name to variable; the checkpoint may hold more values.
            manifest: The checkpoint's manifest, as `find` and `newest_sound` return it.

        Raises:
            StorageError: if the checkpoint can't be opened any more.
            UsageError: if the checkpoint lacks a variable, or holds it in another shape.
        """
        reader = self.reader(manifest)
        shapes = reader.get_variable_to_shape_map()
        wrong = [f"{name} {list(variable.shape)}" for name, variable in variables.items()
                 if shapes.get(name) != list(variable.shape)]
        if wrong:
            raise UsageError(f"the checkpoint of step {manifest['step']:,} is of another model or optimizer: it has no "
                             f"{', '.join(wrong[:3])}" + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
                             "use the model that the run began with, or start anew with another --model_dir")
        values = {name: reader.get_tensor(name) for name in variables}
        for name, variable in variables.items():
            variable.assign(values[name])

    def restore_all(self, variables: Mapping[str, tf.Variable], manifest: Mapping[str, Any]) -> None:
        """Restores variables that must be all that the checkpoint holds.

        Args:
            variables, manifest: As in `restore`.

        Raises:
            StorageError: as `restore`.
            UsageError: as `restore`, and if the checkpoint holds more values.
        """
        held = set(self.reader(manifest).get_variable_to_shape_map())
        if more := sorted(held - set(variables)):
            raise UsageError(f"the checkpoint of step {manifest['step']:,} is of another model or optimizer: it also "
                             f"holds {', '.join(more[:3])}" + (f" and {len(more) - 3} more" if len(more) > 3 else ""),
                             "use the model that the run began with, or start anew with another --model_dir")
        self.restore(variables, manifest)

    def reader(self, manifest: Mapping[str, Any]) -> Any:
        """TensorFlow's reader of a verified checkpoint's values.

        Args:
            manifest: The checkpoint's manifest.

        Raises:
            StorageError: if the checkpoint can't be opened any more.
        """
        try:
            return tf.train.load_checkpoint(str(self.path(manifest["step"]) / "state"))
        except (tf.errors.OpError, ValueError) as error:
            raise StorageError(f"the checkpoint of step {manifest['step']:,} can't be opened any more: "
                               f"{str(error).splitlines()[0][:200]}",
                               "a run that goes on may have replaced it by newer ones: run the same command again"
                               ) from None

    def clear_leftovers(self) -> None:
        """Removes unfinished checkpoints, which a killed run left."""
        for _, path in self._folders():
            if not (path / "manifest.json").exists():
                shutil.rmtree(path, ignore_errors=True)

    def forget_after(self, step: int) -> None:
        """Puts the checkpoints of later steps aside: they are damaged, and the run fell back from them.

        They stay on the disk as step-…damaged: what a file still holds may be worth more than its place.
        """
        for later in self.steps():
            if later > step:
                path = self.path(later)
                endings = itertools.chain(["damaged"], (f"damaged-{copy}" for copy in itertools.count(2)))
                names = (path.with_name(f"{path.name}.{ending}") for ending in endings)
                os.rename(path, next(name for name in names if not name.exists()))

    def _folders(self) -> Iterator[tuple[int, Path]]:
        """(step, folder) of all checkpoints, finished or not; other files and folders are the user's."""
        for path in self.folder.glob("step-*"):
            if (name := _NAME.fullmatch(path.name)) and path == self.path(int(name[1])):
                yield int(name[1]), path

    def _read(self, step: int) -> tuple[_Manifest | None, str | None]:
        """(manifest, fault) of a step's checkpoint, as `manifest.read_manifest` returns them."""
        manifest, fault = read_manifest(self.path(step))
        if manifest and manifest.get("step") != step:
            return None, f"its manifest is of step {manifest.get('step')!r}"
        return manifest, fault

    def _accuracy(self, step: int) -> float | None:
        """The accuracy of a step's evaluation; None if the step wasn't evaluated."""
        manifest, _ = peek_manifest(self.path(step))
        evaluation = (manifest or {}).get("evaluation")
        accuracy = evaluation.get("accuracy") if isinstance(evaluation, dict) else None
        return accuracy if isinstance(accuracy, float | int) else None

    def _remove_old(self) -> None:
        kept = set(self.steps()[-self._keep:]) | {self.best_step()}
        for step in self.steps():
            if step not in kept:
                remove_sealed(self.path(step))


def _bytes(value: Any) -> int:
    """The size of a tensor or variable."""
    return tf.TensorShape(value.shape).num_elements() * tf.as_dtype(value.dtype).size
