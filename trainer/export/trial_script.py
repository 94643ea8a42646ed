"""The process of `ExportTrial`: writes and loads the untrained model in each format.

Reads a line of JSON (model, classes, image_shape, resize, formats) and ends when its input does. The last line that it
prints is a JSON object of format to why it can't hold the model.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NICENESS = 10
_IMAGES = 16


def main() -> None:
    """Tries the exports that the input names."""
    os.nice(_NICENESS)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="lockstep-trial-") as folder:
        failures = _try_exports(task, Path(folder))
    print(json.dumps(failures), flush=True)


def _end_with_input() -> None:
    sys.stdin.read()  # until the process that trains is gone
    os._exit(1)


def _try_exports(task: Mapping[str, Any], folder: Path) -> dict[str, str]:
    from trainer.process import tf_import  # noqa: F401  first: it keeps back what TensorFlow logs while it is imported

    # isort: split
    import numpy as np

    from trainer import models
    from trainer.export import exporter
    from trainer.export.export_processes import ExportProcesses

    shape = tuple(task["image_shape"])
    model = models.build(task["model"], len(task["classes"]), shape)
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, *shape), np.uint8)
    labels = np.argmax(model(images.astype(np.float32), training=False), -1).astype(np.int32)
    failures: dict[str, str] = {}
    with ExportProcesses(task["formats"]) as processes:
        for name in task["formats"]:
            if failure := exporter.write(name, model, folder, task["classes"], task["resize"]):
                failures[name] = failure
        processes.load({name: folder / exporter.PATHS[name] for name in task["formats"] if name not in failures})
        for name in processes.pipes:
            processes.write_images(name, images, labels)
        if "saved_model" in processes.pipes and shape[2] in (1, 3):
            processes.write_files(images, [_png(image) for image in images])
        processes.close_pipes()
        measured = processes.answers(_do_nothing)
    differing = {name: "gives other answers once it is loaded again" for name, answer in measured.answers.items()
                 if answer["accuracy"] < 0.5}  # of fresh weights some answers are near ties
    return failures | measured.failures | differing


def _png(image: Any) -> bytes:
    """A file that shows uint8 [height, width, 1 or 3]."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _do_nothing() -> None:
    pass
