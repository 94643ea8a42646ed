"""XLA's choices of kernels, kept from one start of a run to the next. No TensorFlow.

XLA times several kernels and takes the fastest, so two starts may differ in the last bits, and each start takes the
time of the trials. XLA can write its choices to a file and read them at the next start; they are keyed by program and
GPU, so choices for another GPU are ignored. The file is copied into the model_dir when a checkpoint is written, its
hash is in the manifest, and a file with another hash is not read: XLA would end with an error at a damaged file.

TensorFlow's own cache of compiled programs (tf_xla_persistent_cache_directory) is not used: its key holds the traced
function's number, which changes after a resume, and a damaged entry is an error.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.distributed.devices import machine
from trainer.storage import durable

of_this_process: set[str] = set()  # hashes of the files whose choices this process's XLA knows


class AutotuneFile:
    """The file of a run.

    Args:
        path: The path of the file in the model_dir.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._scratch = Path(tempfile.gettempdir()) / f"lockstep-autotune-{os.getpid()}.textproto"

    def paths(self, manifest: Mapping[str, Any], writes: bool) -> tuple[Path | None, Path | None] | None:
        """The files from which XLA is to read choices and to which it is to write them.

        Args:
            manifest: The manifest of the checkpoint from which the run resumes; {} for a new run.
            writes: Whether this process's choices are to be kept.

        Returns:
            (path or None, path or None), as `gpu_environment.prepare` takes it; None on a machine without GPUs.
        """
        if not machine.has_driver():
            return None
        known = self._path if manifest.get("autotune") and hash_of(self._path) == manifest["autotune"] else None
        return known, self._scratch if writes else None

    def keep(self) -> str | None:
        """Copies what XLA has written so far into the model_dir, durably.

        Returns:
            The hash for the manifest, or None if there is nothing to keep.
        """
        if self._scratch.exists() and hash_of(self._scratch) != hash_of(self._path):
            durable.write_durably(self._path, self._scratch.read_text())
        kept = hash_of(self._path)
        if kept and self._scratch.exists():
            of_this_process.add(kept)
        return kept


def hash_of(path: Path) -> str | None:
    """The SHA-256 of a file, in hexadecimal; None if there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
