"""Checkpoints that are durable, verified before use, and fall back by themselves.

    checkpoints/step-00000390/state.index, state.data-…     as TensorFlow writes them
    checkpoints/step-00000390/manifest.json                 SHA-256 of each; comes last

A checkpoint counts once its manifest is renamed into place. Reading verifies every hash before any
variable changes.
"""

import shutil
from pathlib import Path

import tensorflow as tf

from trainer import files
from trainer.errors import DataError, StorageError, UsageError
from trainer.runtime import reason

_PREFIX = "step-"


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: The run's `checkpoints/`.
        keep: How many of the newest stay; the best one stays besides.
    """

    def __init__(self, folder, keep=3):
        self.folder, self._keep = Path(folder), keep

    def steps(self):
        """Steps of the finished checkpoints, whole or not, in order."""
        return sorted(int(path.parent.name.removeprefix(_PREFIX))
                      for path in self.folder.glob(f"{_PREFIX}*/manifest.json")
                      if path.parent.name.removeprefix(_PREFIX).isdecimal())

    def path(self, step):
        """The folder of a step's checkpoint."""
        return self.folder / f"{_PREFIX}{step:08d}"

    def save(self, state, facts):
        """Writes a checkpoint of what `state` is now, and removes those that are no longer kept.

        Args:
            state: The `TrainState`.
            facts: What the manifest holds besides, a JSON object.
        """
        step = int(state.step.numpy())
        path = self.path(step)
        written, _ = files.read_manifest(path)
        if written:
            # The state of a step is what it is; only what is known about it has grown.
            files.write_manifest(path, {**written, **facts})
            return
        files.remove_sealed(path)
        path.mkdir(parents=True)
        try:
            state.checkpoint().write(str(path / "state"))
        except tf.errors.OpError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise StorageError(f"the checkpoint of step {step} could not be written: {reason(error)}",
                               "make room or mend the folder; the checkpoint before it is kept") from None
        files.seal(path, {"step": step, **facts})
        self._remove_old()

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
            manifest, fault = files.read_manifest(self.path(step))
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
        manifest, fault = files.read_manifest(self.path(int(step)))
        if not manifest:
            raise StorageError(f"checkpoint of step {step} is damaged: {fault}",
                               f"name another with --checkpoint; there are: {there}")
        return manifest

    def restore(self, checkpoint, manifest):
        """Puts a sound checkpoint's values into variables.

        Args:
            checkpoint: A `tf.train.Checkpoint` of the objects that shall have them.
            manifest: As `find` and `newest_sound` return it.

        Returns:
            TensorFlow's status object, to assert on.
        """
        return checkpoint.read(str(self.path(manifest["step"]) / "state"))

    def restore_all(self, state, manifest):
        """Puts a sound checkpoint into a `TrainState`, all of it.

        Raises:
            UsageError: if it holds something else than the state does.
        """
        try:
            self.restore(state.checkpoint(), manifest).assert_consumed()
        except (AssertionError, ValueError, tf.errors.NotFoundError) as error:
            raise UsageError(f"the checkpoint of step {manifest['step']} is of another model or optimizer: "
                             f"{str(error).splitlines()[0][:200]}",
                             "use the model that the run began with, or start anew with another --model_dir") from None

    def clear_leftovers(self):
        """Removes what a killed run left unfinished."""
        finished = {self.path(step) for step in self.steps()}
        for path in self.folder.glob(f"{_PREFIX}*"):
            if path not in finished:
                shutil.rmtree(path, ignore_errors=True)

    def forget_after(self, step):
        """Removes checkpoints of later steps: damaged ones that the run fell back from."""
        for later in self.steps():
            if later > step:
                files.remove_sealed(self.path(later))

    def _accuracy(self, step):
        manifest, _ = files.peek_manifest(self.path(step))
        evaluation = (manifest or {}).get("evaluation")
        return evaluation["accuracy"] if evaluation else None

    def _remove_old(self):
        kept = set(self.steps()[-self._keep:]) | {self.best_step()}
        for step in self.steps():
            if step not in kept:
                files.remove_sealed(self.path(step))
