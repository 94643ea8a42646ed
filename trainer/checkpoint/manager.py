"""What is kept of a run from one start to the next: when it is saved, what goes with it, how it comes back."""

import contextlib
import dataclasses
import json
import time

import keras
import numpy as np
import tensorflow as tf

from trainer import __version__, bit_versions
from trainer.checkpoint.async_writer import Saver
from trainer.checkpoint.checkpoints import Checkpoints
from trainer.distributed import collectives
from trainer.distributed.devices import record
from trainer.distributed.devices.autotune import AutotuneFile
from trainer.errors import DataError, StorageError, failure_of
from trainer.reporting.reporter import Reporter
from trainer.train.metrics import Progress

_SEEN_SECONDS = 90.0


class Keeper:
    """Brings a run back to its newest sound checkpoint, and saves it from then on.

    Args:
        config: The run's `Config`.
        runtime: The `Runtime`. Only the chief writes.
        model_dir: The run's `ModelDir`, claimed.
        console: The `Console`.
        data: The `Dataset`.
        plan: The run's `Plan`.
        state: The `TrainState`; it is restored.

    Attributes:
        progress: The `Progress` of the run so far.
        reporter: The `Reporter`; None on workers that aren't the chief.
        saved_at: The step whose state is saved, or is being saved.

    Raises:
        DataError: if the data is not what it was.
        StorageError: if all checkpoints are damaged, or there is no room for another.
        UsageError: if they are of another model.
    """

    def __init__(self, config, runtime, model_dir, console, data, plan, state):
        self._config, self._runtime, self._model_dir = config, runtime, model_dir
        self._data, self._plan, self._state = data, plan, state
        self._checkpoints = Checkpoints(model_dir.checkpoints, config.keep_checkpoints, model_dir.require_lock)
        self._saver = Saver(self._checkpoints)
        self._began = self._saved_time = time.monotonic()
        self._record, self._autotune = None, AutotuneFile(model_dir.autotune)
        self.progress, self.reporter, self._failure = Progress(), None, None
        reports = self._restore(console)
        self.saved_at = int(state.step.numpy())
        collectives.all_do(runtime, lambda: runtime.is_chief and self._open_reports(console, reports))

    def _restore(self, console):
        """Goes back to the newest sound checkpoint. Returns how far the reports are valid, or None."""
        find = self._checkpoints.newest_sound
        found = collectives.all_do(self._runtime, lambda: find(console.warn) if self._runtime.is_chief else None)
        # The chief chooses: another worker may see the shared folder a moment later.
        (number,) = collectives.agree(self._runtime, [found["step"] + 1 if found else 0])
        return collectives.all_do(self._runtime, lambda: self._go_back(found, number - 1, console)) if number else None

    def _go_back(self, found, step, console):
        """Goes back to a checkpoint; returns how far the reports are valid."""
        manifest = found or self._find_soon(step)
        progress, data, precision, reports = _known(manifest)
        self._state.bit_versions = bit_versions.of_manifest(manifest)
        self._data.require_same(data, self._model_dir.data_parts())
        self._checkpoints.restore_all(self._state.variables(), manifest)
        if self._runtime.is_chief:
            self._tell_differences(manifest, console)
        if precision != self._runtime.precision:
            self._state.reset_loss_scale(self._runtime.precision)
        self.progress = progress
        console.say(f"resuming from step {manifest['step']:,}")
        return reports

    def _tell_differences(self, manifest, console):
        """Says where this start computes on something else than the one before, as far as both can tell."""
        before = manifest.get("computed_on")
        changed = record.differences(before, self._runtime.record()) if isinstance(before, dict) else []
        if changed:
            console.warn(f"resuming with the same examples and draws, but not to the last bit: {'; '.join(changed)}")

    def _find_soon(self, step):
        """Finds the chief's checkpoint; network file systems may show another machine's files a minute late."""
        deadline = time.monotonic() + _SEEN_SECONDS
        while True:
            try:
                return self._checkpoints.find(str(step))
            except DataError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _open_reports(self, console, valid):
        self._model_dir.require_lock()
        self._checkpoints.clear_leftovers()
        self._checkpoints.forget_after(self.saved_at)
        self._checkpoints.require_room(self._state.variables(), "a checkpoint")
        self._model_dir.write_config(self._config, _resolved(self._config, self._runtime, self._plan, self._data))
        self.reporter = Reporter(self._model_dir, console, valid, self.saved_at, self._plan.total_steps,
                                 self._config.ledger)
        if self.saved_at < self._plan.total_steps:
            self._model_dir.result.unlink(missing_ok=True)

    def due(self, step):
        """Whether a checkpoint falls due at a step, by steps or by time."""
        # A state in a streak of bad steps must not push the good ones out.
        if self.saved_at == step or self.progress.bad_in_row:
            return False
        every, minutes = self._plan.checkpoint_every, self._config.checkpoint_every_minutes
        return bool((every and step % every == 0) or (minutes and time.monotonic() - self._saved_time > 60 * minutes))

    def save(self, step):
        """Begins to save what the state is now. What goes wrong, `check` and `wait` raise.

        Args:
            step: Which step that is.
        """
        if self._runtime.is_chief:
            self._failure = self._failure or failure_of(lambda: self._begin_to_save(step))
        self.saved_at, self._saved_time = step, time.monotonic()

    def _begin_to_save(self, step):
        self._model_dir.require_lock()
        self._saver.wait()
        self._saver.save(self._state.snapshot(), *self._facts(step))

    def amend(self, step):
        """Adds to the checkpoint of a step what is known about it by now."""
        def amend():
            self._model_dir.require_lock()
            self._saver.amend(step, *self._facts(step))

        if self._runtime.is_chief:
            self._failure = self._failure or failure_of(amend)

    def check(self):
        """Raises what went wrong in a save that is over, or that another run has the folder now."""
        if self._failure:
            raise self._failure
        self._model_dir.require_lock(closely=False)
        self._saver.check()

    def wait(self):
        """Waits until everything is saved; raises what went wrong."""
        if self._failure:
            raise self._failure
        self._saver.wait()

    def settled(self):
        """Waits likewise; returns whether all went well. From any thread."""
        return self._failure is None and self._saver.settled()

    def is_empty(self):
        """Whether nothing is saved yet."""
        return not self._checkpoints.steps()

    def wall_seconds(self):
        """Time of the run in all, over all starts."""
        return self.progress.wall_seconds + time.monotonic() - self._began

    def close(self):
        """Waits for what is being saved, and closes all files."""
        self._saver.close()
        if self.reporter:
            # All that counts is on the disk; what fails here must not hide what the run ends with.
            with contextlib.suppress(OSError, tf.errors.OpError):
                self.reporter.close()

    def _facts(self, step):
        """(what a manifest holds besides the state, the reports that must be durable before it counts)."""
        progress = dataclasses.replace(self.progress, wall_seconds=self.wall_seconds())
        evaluated = self.progress.evaluation
        sizes, reports = self.reporter.settle()
        self._record = self._record or self._runtime.record()  # once: it asks nvidia-smi
        return {"epoch": self._plan.epoch(step), "data": self._data.fingerprint,
                "computed_on": self._record, "autotune": self._autotune.keep(),
                "precision": self._runtime.precision, "bits": self._state.bit_versions,
                "settings": json.loads(self._config.to_json()),
                "evaluation": evaluated if evaluated and evaluated["step"] == step else None,
                "progress": dataclasses.asdict(progress), "reports": sizes}, reports


def _known(manifest):
    """(progress, fingerprint of the data, precision, sizes of the reports) that a manifest holds."""
    try:
        reports = manifest["reports"]
        sizes = {name: int(reports[name]) for name in ("metrics", "ledger")}
        events = {str(name): int(size) for name, size in reports["tensorboard"].items()}
        return (Progress.from_json(manifest["progress"]), str(manifest["data"]), str(manifest["precision"]),
                {**sizes, "tensorboard": events})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"the manifest of step {manifest['step']:,} is not of this version's making "
                           f"({type(error).__name__}: {error})",
                           "go on with the version that wrote it, or start anew with another --model_dir") from None


def _resolved(config, runtime, plan, data):
    """What became of the settings, for config.json."""
    return {"strategy": type(runtime.strategy).__name__, "devices": list(runtime.devices),
            "replicas": runtime.replicas, "workers": runtime.workers, "precision": runtime.precision,
            "xla": "on" if runtime.xla else "off", "total_steps": plan.total_steps,
            "versions": {"lockstep": __version__, "tensorflow": tf.__version__, "keras": keras.__version__,
                         "numpy": np.__version__},
            "data": {"name": data.name, "fingerprint": data.fingerprint, "classes": list(data.classes),
                     "image_shape": list(data.image_shape), "train_examples": data.train.size,
                     "test_examples": data.test.size, "parts": data.parts}}
