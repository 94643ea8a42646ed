"""The folder export/: where each format lies, the SavedModel's version, and what stays of an earlier export."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.storage.durable import sha256
from trainer.storage.manifest import peek_manifest

PATHS = {"h5": "model.h5", "keras": "model.keras", "saved_model": "saved_model/1", "litert": "model.tflite",
         "litert_float16": "model_float16.tflite", "litert_int8": "model_int8.tflite", "onnx": "model.onnx",
         "openvino": "openvino"}
LABELS = "labels.txt"


class ExportFolder:
    """A run's `export/`, which a new export will replace.

    Args:
        path: The folder; it may not exist.
        weights: What tells the new export's weights from others: JSON, such as their step.
        classes: The names of the classes; an earlier export of other classes doesn't stay.
        keeps: Whether formats that aren't exported now stay as they are.
    """

    def __init__(self, path: Path, weights: Mapping[str, Any], classes: Sequence[str], keeps: bool) -> None:
        self.path, self._weights = path, dict(weights)
        manifest, _ = peek_manifest(path)  # of an export whose files may be damaged: each is looked at by itself
        self._keeps = keeps and (manifest or {}).get("classes") == list(classes)
        self._before: dict[str, Any] = (manifest or {}).get("exports") or {}
        self._files: dict[str, Any] = (manifest or {}).get("files") or {}

    def paths(self) -> dict[str, str]:
        """Format to where it lies in the folder.

        TensorFlow Serving loads the highest version of a SavedModel, and a version once: other weights than those of
        the export before are the next version.
        """
        numbers = [int(inner.name) for inner in self.path.glob("saved_model/*") if inner.name.isdecimal()]
        newest = max(numbers, default=0)
        same = self._before.get("saved_model", {}).get("weights") == self._weights
        return {**PATHS, "saved_model": f"saved_model/{newest if newest and same else newest + 1}"}

    def entry(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """What the manifest says of an export: what was measured, and of which weights."""
        return {**entry, "weights": self._weights}

    def keep(self, staged: Path, replaced: Collection[str]) -> dict[str, Any]:
        """Puts what stays into the new folder: sound files of formats that aren't exported now.

        Args:
            staged: The new folder.
            replaced: The formats that are exported now.

        Returns:
            Format to its entry in the manifest.
        """
        kept = {}
        for name, entry in self._before.items():
            place = str(entry.get("path", "")).partition("/")[2]
            files = [file for file in self._files if file == place or file.startswith(f"{place}/")]
            if self._keeps and name in PATHS and name not in replaced and files and all(map(self._is_sound, files)):
                for file in files:
                    (staged / file).parent.mkdir(parents=True, exist_ok=True)
                    _link(self.path / file, staged / file)
                kept[name] = entry
        return kept

    def _is_sound(self, file: str) -> bool:
        with contextlib.suppress(OSError):
            return sha256(self.path / file) == self._files[file]["sha256"]
        return False


def _link(path: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has none."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)


def write_labels(folder: Path, classes: Sequence[str]) -> None:
    """Writes labels.txt: a class a line, in the order of the logits.

    Args:
        folder: Where it goes.
        classes: Names; a line break in one is a space in the file.
    """
    lines = [" ".join(name.splitlines()) for name in classes]
    # What is no UTF-8 in the name of a folder is the same bytes again in the file.
    (folder / LABELS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")
