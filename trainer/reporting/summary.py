"""The summary that is printed at the end of a run."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.storage.model_dir import ModelDir


def summary(model_dir: ModelDir, result: Mapping[str, Any]) -> str:
    """The results of a run, and the paths of its files.

    Args:
        model_dir: The run's folder.
        result: What result.json holds.

    Returns:
        A text of several lines.
    """
    best, root = result["best"], model_dir.root
    loss = "not finite" if result["eval_loss"] is None else f"{result['eval_loss']:.4f}"
    lines = ["", f"{result['eval_split']} accuracy {result['eval_accuracy']:.2%} (loss {loss}) after "
             f"{result['epoch']:.3g} epochs, {result['step']:,} steps; best {best['accuracy']:.2%} at step "
             f"{best['step']:,}"]
    lines.append(_quality(result["quality"]))
    if result["selected_on"] or result["eval_split"] != "test":
        lines.append(_exported(result))
    if result["images_per_second"]:
        lines.append(f"{result['images_per_second']:,.0f} images/s on {result['replicas']} "
                     f"replica{'s' if result['replicas'] > 1 else ''}, {result['wall_seconds']:.0f} s in all")
    if result["bad_records"]:
        lines.append(f"{result['bad_records']:,} images or files could not be used; they had no weight")
    for export in result["exports"].values():
        lines.append(f"  {str(root / export['path']):<50} accuracy {export['accuracy']:.2%}, "
                     f"{export['bytes'] / 1e6:.2f} MB{_latency(export)}")
    lines += [f"  the {name} export {why}" for name, why in result["export_failures"].items()]
    lines += [f"  {model_dir.report / 'report.html'!s:<50} all of this, and what it gets wrong, on one page",
              f"  {model_dir.report / 'curves.png'!s:<50} loss and accuracy, of training and evaluation",
              f"  {model_dir.report / 'samples.png'!s:<50} examples as they are, and as training sees them",
              f"  {model_dir.result!s:<50} all of this, for programs", "",
              f"  {shlex.join([_tensorboard(), f'--logdir={model_dir.tensorboard}'])}", ""]
    return "\n".join(lines)


def _latency(export: Mapping[str, Any]) -> str:
    """How long a call of an export takes, where that was measured."""
    if "latency" not in export:
        return ""
    one, many = (export["latency"][batch]["ms"] for batch in ("batch_1", "batch_32"))
    return f", {one:.3g} ms for an image, {many:.3g} ms for 32"


def _quality(quality: Mapping[str, Any]) -> str:
    """How sure the accuracy of the exported weights is, and how good they are for each class alike."""
    low, high = quality["accuracy_interval"]
    macro_f1 = "" if quality["macro_f1"] is None else f"; macro F1 {quality['macro_f1']:.4f}"
    return (f"exported weights on {quality['split']}: {quality['accuracy']:.2%}, 95 % interval {low:.2%} to "
            f"{high:.2%}, {quality['examples']:,} examples{macro_f1}")


def _exported(result: Mapping[str, Any]) -> str:
    """Which weights were chosen, by what, and their test accuracy."""
    best = result["exported_step"] == result["best"]["step"] and result["selected_on"]
    chosen = f"chosen: step {result['exported_step']:,}, " + (f"the best on {result['selected_on']}" if best else
                                                               "the last")
    test = result["test_accuracy"]
    return f"{chosen}; its test accuracy, measured once: {test:.2%}" if test is not None else f"{chosen}; no test split"


def _tensorboard() -> str:
    """The command that starts TensorBoard: its name, or its path if Python's environment isn't active."""
    path = Path(sys.executable).with_name("tensorboard")
    if shutil.which("tensorboard") or not path.exists():
        return "tensorboard"
    with contextlib.suppress(FileNotFoundError):  # the folder that this was started in is gone
        return os.path.relpath(path)
    return str(path)
