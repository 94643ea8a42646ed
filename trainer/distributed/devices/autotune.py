"""XLA's choices of kernels, kept from one start of a run to the next. No TensorFlow.

XLA tries kernels out and takes the fastest, so two starts may differ in the last bits, and each pays for the trying.
It can write its choices to a file and read them at the next start; they are keyed by program and GPU, so another GPU's
are passed over. The file is kept in the model_dir when a checkpoint is written, its hash stands in the manifest, and
a file that isn't the manifest's is not read: XLA would end with an error at a damaged one.

TensorFlow's own cache of compiled programs (tf_xla_persistent_cache_directory) is not used: its key holds the traced
function's number, which is another one after a resume, and a damaged entry is an error.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from trainer.distributed.devices import machine
from trainer.storage import durable


class AutotuneFile:
    """The file of a run.

    Args:
        path: Where it is kept.
    """

    def __init__(self, path):
        self._path = Path(path)
        self._scratch = Path(tempfile.gettempdir()) / f"lockstep-autotune-{os.getpid()}.textproto"

    def places(self, manifest, writes):
        """Where XLA is to read choices from and write them to, as `environment.prepare` takes it.

        Args:
            manifest: Of the checkpoint that the run goes on from; {} for a new run.
            writes: Whether this process's choices are to be kept.

        Returns:
            (path or None, path or None), or None where there is no GPU.
        """
        if not machine.has_driver():
            return None
        known = self._path if manifest.get("autotune") and _hash(self._path) == manifest["autotune"] else None
        return known, self._scratch if writes else None

    def keep(self):
        """Keeps what XLA has written by now, durably.

        Returns:
            The hash for the manifest, or None if there is nothing to keep.
        """
        if self._scratch.exists() and _hash(self._scratch) != _hash(self._path):
            durable.write_durably(self._path, self._scratch.read_text())
        return _hash(self._path)


def _hash(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
