"""A run's folder: which process may use it, and the paths of its files."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.errors import DataError, UsageError
from trainer.options import shown_value
from trainer.storage import bit_versions, durable
from trainer.storage.folder_lock import LOCK, FolderLock
from trainer.storage.manifest import peek_manifest


class ModelDir:
    """The paths of the files in a model_dir, and the right to write them.

    Args:
        root: The folder.

    Attributes:
        root: The folder, with `~` expanded.
        config, metrics, ledger, timeline, checkpoints, tensorboard, export, report, result, predictions,
            validation_predictions, log, autotune: The paths in it.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser()
        self.config = self.root / "config.json"
        self.metrics = self.root / "metrics.jsonl"
        self.ledger = self.root / "ledger.jsonl"
        self.timeline = self.root / "timeline.jsonl"
        self.checkpoints = self.root / "checkpoints"
        self.tensorboard = self.root / "tensorboard"
        self.export = self.root / "export"
        self.report = self.root / "report"
        self.result = self.root / "result.json"
        self.predictions = self.root / "predictions.npz"
        self.validation_predictions = self.root / "predictions_validation.npz"  # where predictions.npz is of test
        self.log = self.root / "log.txt"
        self.autotune = self.root / "autotune.textproto"
        self._lock: FolderLock | None = None

    def read_config(self) -> dict[str, Any]:
        """What config.json holds.

        Returns:
            The parsed object.

        Raises:
            DataError: if the file doesn't exist, or can't be read.
        """
        try:
            value = json.loads(self.config.read_text(encoding="utf-8"))
            settings, data = Config.from_mapping(value["given"]), value["data"]
            # An older run without --data_dir read the folder that it was started in.
            if problems := dataclasses.replace(settings, data_dir=settings.data_dir or ".").problems():
                raise ValueError(problems[0])
            if not (all(isinstance(name, str) for name in data["classes"])
                    and [type(size) for size in data["image_shape"]] == [int] * 3):
                raise ValueError("its data has no classes or no image shape")
            return value
        except FileNotFoundError:
            raise DataError(f"{self.root} is not a run directory: it has no config.json",
                            "name the --model_dir of a run, or train one first") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{self.config} can't be read ({type(error).__name__}: {error})",
                            "restore the file, or start anew with another --model_dir") from None

    def newest_manifest(self) -> dict[str, Any]:
        """The manifest of the newest checkpoint, or {} if it can't be read or there is no checkpoint."""
        newest = max(self.checkpoints.glob("step-*/manifest.json"), default=None)
        return (newest and peek_manifest(newest.parent)[0]) or {}

    def decided(self, name: str) -> int | None:
        """What the run decided once, where its settings leave it to the run; None if it hasn't yet.

        Args:
            name: Of what was decided: microbatch.
        """
        for path in sorted(self.checkpoints.glob("step-*/manifest.json"), reverse=True):
            manifest, _ = peek_manifest(path.parent)
            if manifest:
                value = (manifest.get("decided") or {}).get(name)
                return value if isinstance(value, int) and value > 0 else None
        return None

    def data_parts(self) -> dict[str, str] | None:
        """What the run's data was made of (`Dataset.parts`), or None if config.json doesn't say."""
        with contextlib.suppress(DataError):
            parts = self.read_config()["data"].get("parts")
            return parts if isinstance(parts, dict) else None
        return None

    def inherit(self, config: Config) -> Config:
        """A configuration as the folder's run goes on with it.

        Args:
            config: What the user gave.

        Returns:
            The same, with what isn't given and decides which run it is (`Config.inherit`) as the folder's run has it.
        """
        manifests = sorted(self.checkpoints.glob("step-*/manifest.json"), reverse=True)
        with contextlib.suppress(DataError):  # `claim` says what is wrong
            if manifests:
                return config.inherit(self._settings(manifests))
        return config

    def claim(self, config: Config) -> list[tuple[str, Any, Any]]:
        """Makes the folder this run's, before anything is written into it.

        Args:
            config: The run's `Config`.

        Returns:
            A list of (name, before, now) of each setting that differs from the folder's run; empty for a new run.

        Raises:
            BusyError: if another process is using the folder.
            DataError: if the settings of the folder's run can't be read.
            UsageError: if `--resume` forbids it, or the settings or this version would make it another run.
        """
        self.lock()
        manifests = sorted(self.checkpoints.glob("step-*/manifest.json"), reverse=True)
        if config.resume == "never" and (manifests or self.config.exists()):
            raise UsageError(f"--resume=never refuses a used model_dir; {self.root} holds a run already",
                             "use another --model_dir, or leave --resume out to go on with this run")
        if config.resume == "require" and not manifests:
            raise UsageError(f"--resume=require needs a checkpoint; {self.root} has none",
                             "name the --model_dir of a run that has one, or leave --resume out")
        if not manifests:
            return []  # a new run: an earlier start saved nothing, so its settings don't matter
        bit_versions.of_manifest(self.newest_manifest())
        differences = config.differences(self._settings(manifests))
        refused = [f"--{name}: the run has {shown_value(before)}, received {shown_value(received)}{_why(name, config)}"
                   for name, received, before, another_run in differences if another_run]
        if refused:
            raise UsageError([f"{self.root} holds a run with other settings:", *refused],
                             "use its settings to go on with it, or use another --model_dir; a new run begins with its "
                             f"weights by --init_from={self.root}")
        return [(name, before, received) for name, received, before, _ in differences]

    def _settings(self, manifests: Sequence[Path]) -> Config:
        """The settings of the folder's run: those in config.json or, if that file is gone, a checkpoint's."""
        if self.config.exists():
            return Config.from_mapping(self.read_config()["given"])
        for path in manifests:
            manifest, _ = peek_manifest(path.parent)
            if manifest and isinstance(manifest.get("settings"), dict):
                return Config.from_mapping(manifest["settings"])
        raise DataError(f"{self.root} has checkpoints, but neither config.json nor a manifest says of which run",
                        "restore config.json, or start anew with another --model_dir")

    def write_config(self, config: Config, resolved: Mapping[str, Any]) -> None:
        """Writes config.json.

        Args:
            config: The run's `Config`, kept as it was given.
            resolved: What became of it: settings with every `auto` resolved, versions, data.
        """
        given = json.loads(config.to_json())
        durable.write_durably(self.config, json.dumps({**given, **resolved, "given": given}, indent=2))

    def lock(self) -> None:
        """Takes the folder for this process.

        Raises:
            BusyError: if another process is using the folder.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.root)
        lock.take()
        self._lock = lock

    def require_lock(self, closely: bool = True) -> None:
        """Checks that the folder is still this process's.

        Args:
            closely: Whether to check the disk now; otherwise the result of the last heartbeat is used.

        Raises:
            BusyError: if another process took the folder over, because this process's heartbeat had expired.
        """
        if self._lock and (closely or self._lock.lost):
            self._lock.require()

    def unlock(self) -> None:
        """Gives the folder back, if this process has it."""
        if self._lock:
            self._lock.give_back()
            self._lock = None


def _why(name: str, config: Config) -> str:
    """Why a setting that may change in other runs may not change in this one; "" for all others."""
    follows = name in ("epochs", "max_steps")
    return f" (the rate of every step follows from the length with --schedule={config.schedule})" if follows else ""


class ScratchDir(ModelDir):
    """The folder of a dry run: beside a run's folder, on the same disk, and gone once it is unlocked.

    Args:
        root: The run's folder; nothing is written into it.
    """

    def __init__(self, root: Path | str) -> None:
        run = Path(root).expanduser().absolute()
        self._made = [parent for parent in run.parents if not parent.exists()]
        super().__init__(run.with_name(f".{run.name}.dry_run"))

    def claim(self, config: Config) -> list[tuple[str, Any, Any]]:
        """Makes the folder this run's, without what an earlier dry run left that was killed.

        Raises:
            BusyError: if another dry run is using it.
        """
        self.lock()
        for path in self.root.iterdir():
            if path.name == LOCK:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return []

    def unlock(self) -> None:
        """Removes the folder, if this process has it, and those that were made for it."""
        if self._lock:
            super().unlock()
            shutil.rmtree(self.root, ignore_errors=True)
            for parent in self._made:
                with contextlib.suppress(OSError):
                    parent.rmdir()
