"""The process of `ExportTrial`: writes and loads the untrained model in each format.

Reads a line of JSON (model, classes, image_shape, resize, formats) and ends when its input does. Writes a line of
JSON to its output: an object of format to why it can't hold the model.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NICENESS = 10


def main() -> None:
    """Tries the exports that the input names."""
    os.nice(_NICENESS)
    answer = os.dup(1)
    os.dup2(2, 1)  # what the user's own code prints is no answer, whenever it is flushed
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="lockstep-trial-") as folder:
        failures = _try_exports(task, Path(folder))
    os.write(answer, json.dumps(failures).encode() + b"\n")


def _end_with_input() -> None:
    sys.stdin.read()  # until the process that trains is gone
    os._exit(1)


def _try_exports(task: Mapping[str, Any], folder: Path) -> dict[str, str]:
    from trainer.process import tf_import  # noqa: F401  first: it keeps back what TensorFlow logs while it is imported

    # isort: split
    import keras
    import numpy as np

    from trainer import models
    from trainer.export import comparison, exporter
    from trainer.export.export_processes import ExportProcesses
    from trainer.export.folder import PATHS
    from trainer.export.measure import ANSWERED, FILES

    classes = task["classes"]
    model = models.build(task["model"], len(classes), tuple(task["image_shape"]))
    split = comparison.drawn(classes, model).evaluated
    (images, _), = split.chunks(split.size)
    probabilities = keras.ops.softmax(model(images.astype(np.float32), training=False))
    files = [np.frombuffer(file, np.uint8) for example in range(split.size) if (file := split.served_file(example))]
    failures: dict[str, str] = {}
    with ExportProcesses(task["formats"], timed=False) as processes:
        for name in task["formats"]:
            if failure := exporter.write(name, model, folder / PATHS[name], classes, task["resize"], lambda: images):
                failures[name] = failure
        processes.load({name: folder / PATHS[name] for name in task["formats"] if name not in failures})
        for name in processes.pipes:
            processes.write(name, ANSWERED, images, np.array([len(classes)]), np.asarray(probabilities))
        if "saved_model" in processes.pipes and files:
            processes.write("saved_model", FILES, images, np.array([len(file) for file in files]), *files)
        processes.close_pipes()
        measured = processes.answers(_do_nothing)
    return failures | measured.failures | exporter.differences(measured.answers, None, "")


def _do_nothing() -> None:
    pass


if __name__ == "__main__":
    main()
