"""`evaluate`: a whole split, every example once."""

import dataclasses
import json

from trainer.commands._trained_run import TrainedOptions, TrainedRun
from trainer.config import LARGEST_DEFAULT_BATCH
from trainer.errors import UsageError
from trainer.options import option
from trainer.process.exit import say

_LISTED = 12  # classes


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer evaluate --model_dir=D: loss and accuracy on a whole split."""

    split: str = option("auto", "split to evaluate; auto: the one that the run evaluates from epoch to epoch",
                        choices=("auto", "validation", "test"))
    tta: str = option("none", "average over forms of an image; flip: the mean of the probabilities of the image and "
                      "its mirror image, as Krizhevsky et al. 2012 did", choices=("none", "flip"))
    virtual_devices: int = option(0, "split the CPU (or each GPU) into N logical devices", least=0, most=64)
    json: bool = option(False, "print a JSON object")


def run(options: Options) -> None:
    """Prints loss and accuracy, of the whole split and by class."""
    trained = TrainedRun(options, virtual_devices=options.virtual_devices)
    from trainer.train.evaluation import Evaluator

    data, runtime = trained.data(), trained.runtime
    name = data.evaluated_name if options.split == "auto" else options.split
    if name not in data.splits:
        raise UsageError(f"--split={name}: the data of {trained.model_dir.root} has no such split; there are: "
                         f"{', '.join(data.splits)}", f"--split={data.evaluated_name}")
    per_replica_batch_size = max(1, (trained.config.batch_size or LARGEST_DEFAULT_BATCH) // runtime.replicas)
    result = Evaluator(trained.model(), data.splits[name], runtime, per_replica_batch_size=per_replica_batch_size,
                       flips=options.tta == "flip").run()
    assert result is not None  # nothing stops this evaluation
    step = trained.manifest["step"]
    if options.json:
        print(json.dumps({"step": step, "epoch": trained.manifest["epoch"], "split": name, "tta": options.tta,
                          "eval_accuracy": result.accuracy, "eval_loss": result.loss, "examples": result.examples,
                          "class_accuracy": dict(zip(data.classes, result.class_accuracy, strict=True))}))
    else:
        averaged = " (mean with the mirror image)" if options.tta == "flip" else ""
        print(f"step {step:,}: {name}{averaged} accuracy {result.accuracy:.2%}, loss {result.loss:.4f}, over "
              f"{result.examples:,} examples ({runtime.sentence()})")
        ranked = sorted((accuracy, name) for accuracy, name in zip(result.class_accuracy, data.classes, strict=True)
                        if accuracy is not None)
        shown = ranked if len(ranked) <= _LISTED else ranked[:_LISTED]
        say(f"by class, the worst first{'' if shown is ranked else f' (of {len(ranked):,})'}: "
              + ", ".join(f"{name} {accuracy:.1%}" for accuracy, name in shown))
