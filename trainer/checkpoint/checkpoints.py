"""Checkpoints that are durable, verified before use, and fall back by themselves.

    checkpoints/step-00000390/state.index, state.data-…     TensorFlow's tensor bundle: name → value
    checkpoints/step-00000390/manifest.json                 SHA-256 of each; comes last

A checkpoint counts once its manifest is renamed into place. Reading verifies every hash, name and shape
before any variable changes.
"""

import re
import shutil
from pathlib import Path

from trainer.errors import DataError, StorageError, UsageError
from trainer.process.tf_import import reason, tf
from trainer.storage import durable
from trainer.storage.manifest import peek_manifest, read_manifest, remove_sealed, seal, write_manifest

_NAME = re.compile(r"step-(\d{8,})")
_MARGIN = 2**20  # bytes that manifests, metrics and folders may need besides


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: The run's `checkpoints/`.
        keep: How many of the newest stay; the best one stays besides.
        guard: Called before a checkpoint counts; may raise.
    """

    def __init__(self, folder, keep=3, guard=lambda: None):
        self.folder, self._keep, self._guard = Path(folder), keep, guard

    def steps(self):
        """Steps of the finished checkpoints, whole or not, in order."""
        return sorted(step for step, path in self._folders() if (path / "manifest.json").exists())

    def path(self, step):
        """The folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(self, values, metadata, reports=()):
        """Writes a checkpoint, and removes those that are no longer kept.

        Args:
            values: A dict of name to tensor on the host, as `TrainState.snapshot` returns it.
            metadata: What the manifest holds besides, a JSON object.
            reports: Files that the metadata speak of; they are made durable first.

        Raises:
            StorageError: if there is no room for it, or it can't be written.
        """
        step = int(values["step"])
        path = self.path(step)
        if self._read(step)[0]:
            self.update_manifest(step, metadata, reports)  # the state of a step is what it is
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
            said = reason(error) if isinstance(error, tf.errors.OpError) else error.strerror
            raise StorageError(f"the checkpoint of step {step:,} could not be written: {said}",
                               "make room or repair the folder; the checkpoint before it is kept") from None
        self._remove_old()

    def update_manifest(self, step, metadata, reports=()):
        """Adds to a checkpoint what was learned about its step later, such as its evaluation.

        Args:
            step: Which.
            metadata, reports: As in `save`.

        Raises:
            StorageError: if its manifest is damaged by now.
        """
        manifest, fault = peek_manifest(self.path(step))
        if fault:
            raise StorageError(f"checkpoint of step {step:,} was damaged while the run was going on: {fault}",
                               "check what else writes into the folder, then run the same command again")
        durable.flush_all(reports)
        write_manifest(self.path(step), {**manifest, **metadata})
        self._remove_old()

    def require_room(self, values, what):
        """Looks whether a checkpoint of `values` fits on the disk.

        Args:
            values: Tensors or variables by name.
            what: What is to be written, for people.

        Raises:
            StorageError: if it doesn't.
        """
        durable.require_room(self.folder, sum(_bytes(value) for value in values.values()) + _MARGIN, what)

    def newest_sound(self, warn):
        """Finds the newest checkpoint that is what was written.

        Args:
            warn: Is called with a sentence for each that isn't.

        Returns:
            Its manifest, or None if there is none at all.

        Raises:
            StorageError: if there are checkpoints and none is sound.
        """
        steps = self.steps()
        for step in reversed(steps):
            manifest, fault = self._read(step)
            if manifest:
                return manifest
            warn(f"checkpoint of step {step} is damaged: {fault}; falling back to the one before")
        if steps:
            raise StorageError(f"all {len(steps)} checkpoints in {self.folder} are damaged",
                               "restore the folder from a backup, or start anew with another --model_dir")
        return None

    def best_step(self):
        """The step of the best evaluated checkpoint, or None. The earlier one wins a tie."""
        scores = {step: accuracy for step in self.steps() if (accuracy := self._accuracy(step)) is not None}
        return max(scores, key=lambda step: (scores[step], -step)) if scores else None

    def find(self, name):
        """The sound checkpoint that a user names.

        Args:
            name: latest, best, or a step.

        Returns:
            Its manifest.

        Raises:
            DataError: if there is no such checkpoint.
            StorageError: if it is damaged.
        """
        there = ", ".join(map(str, self.steps())) or "none"
        step = {"latest": max(self.steps(), default=None), "best": self.best_step()}.get(name, name)
        if step is None or not str(step).isdecimal() or int(step) not in self.steps():
            raise DataError(f"there is no checkpoint {name!r} in {self.folder}; there are: {there}",
                            "name latest, best or one of these steps with --checkpoint, or train first")
        manifest, fault = self._read(int(step))
        if not manifest:
            raise StorageError(f"checkpoint of step {step} is damaged: {fault}",
                               f"name another with --checkpoint; there are: {there}")
        return manifest

    def restore(self, variables, manifest):
        """Puts a sound checkpoint's values into variables; all of them, or none.

        Args:
            variables: A dict of name to `tf.Variable`; the checkpoint may hold more.
            manifest: As `find` and `newest_sound` return it.

        Raises:
            UsageError: if it is the checkpoint of something else.
        """
        reader = self._open(manifest)
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

    def restore_all(self, variables, manifest):
        """As `restore`, for a state that must take up all that the checkpoint holds."""
        held = set(self._open(manifest).get_variable_to_shape_map())
        if more := sorted(held - set(variables)):
            raise UsageError(f"the checkpoint of step {manifest['step']:,} is of another model or optimizer: it also "
                             f"holds {', '.join(more[:3])}" + (f" and {len(more) - 3} more" if len(more) > 3 else ""),
                             "use the model that the run began with, or start anew with another --model_dir")
        self.restore(variables, manifest)

    def _open(self, manifest):
        try:
            return tf.train.load_checkpoint(str(self.path(manifest["step"]) / "state"))
        except (tf.errors.OpError, ValueError) as error:
            raise StorageError(f"the checkpoint of step {manifest['step']:,} can't be opened any more: "
                               f"{str(error).splitlines()[0][:200]}",
                               "a run that goes on may have replaced it by newer ones: run the same command again"
                               ) from None

    def clear_leftovers(self):
        """Removes what a killed run left unfinished."""
        for _, path in self._folders():
            if not (path / "manifest.json").exists():
                shutil.rmtree(path, ignore_errors=True)

    def forget_after(self, step):
        """Removes checkpoints of later steps: damaged ones that the run fell back from."""
        for later in self.steps():
            if later > step:
                remove_sealed(self.path(later))

    def _folders(self):
        """(step, folder) of all checkpoints, finished or not. What users put beside them is theirs."""
        for path in self.folder.glob("step-*"):
            if (name := _NAME.fullmatch(path.name)) and path == self.path(int(name[1])):
                yield int(name[1]), path

    def _read(self, step):
        """As `files.read_manifest`, of a step's checkpoint."""
        manifest, fault = read_manifest(self.path(step))
        if manifest and manifest.get("step") != step:
            return None, f"its manifest is of step {manifest.get('step')!r}"
        return manifest, fault

    def _accuracy(self, step):
        manifest, _ = peek_manifest(self.path(step))
        evaluation = (manifest or {}).get("evaluation")
        accuracy = evaluation.get("accuracy") if isinstance(evaluation, dict) else None
        return accuracy if isinstance(accuracy, float | int) else None

    def _remove_old(self):
        kept = set(self.steps()[-self._keep:]) | {self.best_step()}
        for step in self.steps():
            if step not in kept:
                remove_sealed(self.path(step))


def _bytes(value):
    return tf.TensorShape(value.shape).num_elements() * tf.as_dtype(value.dtype).size
