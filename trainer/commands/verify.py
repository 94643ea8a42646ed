"""`verify`: every checkpoint and export of a run against its manifest. Needs no TensorFlow."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from trainer.errors import DataError, StorageError, first_few
from trainer.options import Checked, option
from trainer.process.exit import say
from trainer.storage.manifest import read_manifest
from trainer.storage.model_dir import ModelDir


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer verify --model_dir=D: finds accidents (not attackers) by SHA-256."""

    model_dir: str = option("", "folder of the run")

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        return super().problems() + ([] if self.model_dir else ["--model_dir is needed: the folder of a run"])


def run(options: Options) -> None:
    """Prints a line per checkpoint and export.

    Raises:
        DataError: if the folder has neither checkpoints nor exports.
        StorageError: if a checkpoint or an export is damaged.
    """
    model_dir = ModelDir(options.model_dir)
    folders = sorted(model_dir.checkpoints.glob("step-*"))
    folders += [model_dir.export] if model_dir.export.exists() else []
    if not folders:
        raise DataError(f"{model_dir.root} holds no checkpoint and no export", "name the --model_dir of a run")
    damaged = []
    for folder in folders:
        manifest, fault = read_manifest(folder)
        # A folder without a manifest is what a killed save left, or what a running run is removing: not a checkpoint.
        unfinished = fault and folder != model_dir.export and not (folder / "manifest.json").exists()
        content = f"{len(manifest['files'])} files, {_megabytes(manifest):.2f} MB" if manifest else fault
        say(f"{'unfinished' if unfinished else 'damaged' if fault else 'sound':<10} {folder}   {content}")
        damaged += [folder.name] if fault and not unfinished else []
    if damaged:
        again = shlex.join(["python", "-m", "trainer", "export", f"--model_dir={model_dir.root}"])
        raise StorageError(f"{len(damaged)} of {len(folders)} are damaged: {first_few(damaged)}",
                           f"the training's command goes on from the newest sound checkpoint, if there is one; {again} "
                           "writes export/ again")


def _megabytes(manifest: Mapping[str, Any]) -> float:
    return sum(entry["bytes"] for entry in manifest["files"].values()) / 1e6
