"""A run's folder: who may use it, and what is where."""

import contextlib
import json
from pathlib import Path

from trainer.config import Config
from trainer.errors import DataError, UsageError
from trainer.storage import bit_versions, durable
from trainer.storage.folder_lock import FolderLock
from trainer.storage.manifest import peek_manifest


class ModelDir:
    """The names of what lies in a model_dir.

    Args:
        root: The folder.
    """

    def __init__(self, root):
        self.root = Path(root).expanduser()
        self.config = self.root / "config.json"
        self.metrics = self.root / "metrics.jsonl"
        self.ledger = self.root / "ledger.jsonl"
        self.checkpoints = self.root / "checkpoints"
        self.tensorboard = self.root / "tensorboard"
        self.export = self.root / "export"
        self.report = self.root / "report"
        self.result = self.root / "result.json"
        self.log = self.root / "log.txt"
        self.autotune = self.root / "autotune.textproto"
        self._lock = None

    def read_config(self):
        """What config.json holds.

        Returns:
            The parsed object.

        Raises:
            DataError: if there is none, or it can't be read.
        """
        try:
            value = json.loads(self.config.read_text(encoding="utf-8"))
            settings, data = Config.from_mapping(value["given"]), value["data"]
            if problems := settings.problems():
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

    def newest_manifest(self):
        """The manifest of the newest checkpoint, or {} if there is none that can be read."""
        newest = max(self.checkpoints.glob("step-*/manifest.json"), default=None)
        return (newest and peek_manifest(newest.parent)[0]) or {}

    def data_parts(self):
        """What the run's data was made of (`Dataset.parts`), or None if config.json doesn't say."""
        with contextlib.suppress(DataError):
            parts = self.read_config()["data"].get("parts")
            return parts if isinstance(parts, dict) else None

    def claim(self, config):
        """Makes the folder this run's, before anything is written into it.

        Args:
            config: The run's `Config`.

        Returns:
            A list of (name, before, now) of each setting that differs from the folder's run; empty for a new run.

        Raises:
            BusyError: if another process is using it.
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
            return []  # nothing to go on from: a new run, whatever a start before it was given
        bit_versions.of_manifest(self.newest_manifest())
        differences = config.differences(self._settings(manifests))
        other = [f"--{name}: the run has {theirs!r}, received {mine!r}"
                 for name, mine, theirs, another_run in differences if another_run]
        if other:
            raise UsageError([f"{self.root} holds a run with other settings:", *other],
                             "use its settings to go on with it, or use another --model_dir")
        return [(name, theirs, mine) for name, mine, theirs, _ in differences]

    def _settings(self, manifests):
        """The settings of the run that is here: config.json's, or where that is gone a checkpoint's."""
        if self.config.exists():
            return Config.from_mapping(self.read_config()["given"])
        for path in manifests:
            manifest, _ = peek_manifest(path.parent)
            if manifest and isinstance(manifest.get("settings"), dict):
                return Config.from_mapping(manifest["settings"])
        raise DataError(f"{self.root} has checkpoints, but neither config.json nor a manifest says of which run",
                        "restore config.json, or start anew with another --model_dir")

    def write_config(self, config, resolved):
        """Writes config.json.

        Args:
            config: The run's `Config`, kept as it was given.
            resolved: What became of it: settings with every `auto` resolved, versions, data.
        """
        given = json.loads(config.to_json())
        durable.write_durably(self.config, json.dumps({**given, **resolved, "given": given}, indent=2))

    def lock(self):
        """Takes the folder for this process.

        Raises:
            BusyError: if another process is using it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.root)
        lock.take()
        self._lock = lock

    def require_lock(self, closely=True):
        """Makes sure that the folder is still this process's.

        Args:
            closely: Look now; otherwise what the last heartbeat saw will do.

        Raises:
            BusyError: if another took it over, having thought this one dead.
        """
        if self._lock and (closely or self._lock.lost):
            self._lock.require()

    def unlock(self):
        """Gives the folder back, if this process has it."""
        if self._lock:
            self._lock.give_back()
            self._lock = None
