"""`evaluate`: a whole split, or other labelled images, every example once."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.commands.common.trained_run import TrainedOptions, TrainedRun
from trainer.config import Config
from trainer.errors import UsageError
from trainer.options import option
from trainer.process.exit import say, tell
from trainer.quality.figures import figures_of
from trainer.rules.combinations import needs_data_dir

if TYPE_CHECKING:
    from trainer.data.bad_examples import BadExamples
    from trainer.data.split import Split
    from trainer.train.evaluation import Evaluation

_LISTED = 12  # classes
_DATASET = Config.__dataclass_fields__["dataset"].metadata


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer evaluate --model_dir=D: loss and accuracy on a split, or with --dataset on other images."""

    dataset: str = option("", "other labelled images, of any kind that --dataset of the training takes, in --data_dir; "
                          "their classes are matched by name, and may be some of the model's; default: the data that "
                          "the run trained on", choices=("", *_DATASET["choices"]), pattern=_DATASET["pattern"])
    split: str = option("auto", "split to evaluate; auto: the one that the run evaluates from epoch to epoch; of other "
                        "images the only one that there is, else test, else validation",
                        choices=("auto", "train", "validation", "test"))
    max_bad_records: int | None = option(None, "number of images and files that can't be used to go on with; default: "
                                         "the same as in training", least=0)
    tta: str = option("none", "average over forms of an image; flip: the mean of the probabilities of the image and "
                      "its mirror image, as Krizhevsky et al. 2012 did; flip_translate: the mean of the logits of "
                      "these, and of both moved by a pixel, as Jordan 2024 did",
                      choices=("none", "flip", "flip_translate"))
    virtual_devices: int = option(0, "split the CPU (or each GPU) into N logical devices", least=0, most=64)
    json: bool = option(False, "print a JSON object")

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        return super().problems() + needs_data_dir(self.dataset, self.data_dir)


class _Data(NamedTuple):
    """What is evaluated.

    Args:
        name: The split's name.
        split: The split, with the model's labels.
        bad: The images and files that can't be used.
        of: The data that the split is of, as a user reads it; empty for the run's own.
    """

    name: str
    split: "Split"
    bad: "BadExamples"
    of: str


def run(options: Options) -> None:
    """Prints loss and accuracy, of the whole split and by class, and says which data it was.

    Raises:
        DataError: if the data is missing, damaged or not the run's, or holds classes that the model doesn't know.
        UsageError: if the data has no such split, or can't be the model's.
    """
    trained = TrainedRun(options, virtual_devices=options.virtual_devices)
    from trainer.reporting.board.own_metrics import OwnMetrics
    from trainer.train.evaluation import Evaluator

    if options.max_bad_records is not None:
        trained.config = dataclasses.replace(trained.config, max_bad_records=options.max_bad_records)
    data = _other_data(options, trained) if options.dataset else _own_data(options, trained)
    # No larger than in training: what fitted on many devices need not fit on one.
    rows = max(1, trained.config.known_batch_size // max(trained.runtime.replicas, trained.trained_replicas))
    evaluator = Evaluator(trained.model(), data.split, trained.runtime, per_replica_batch_size=rows,
                          flips=options.tta == "flip", translates=options.tta == "flip_translate")
    result = evaluator.run()
    assert result is not None  # nothing stops this evaluation
    data.bad.check()
    for line in data.bad.news():
        tell(f"lockstep: warning: left out: {line}")
    said = evaluator.predictions(split=data.name, step=trained.manifest["step"], classes=trained.classes)
    own = OwnMetrics(trained.config.metrics, lambda sentence: tell(f"lockstep: warning: {sentence}")).of(said)
    _print(options, trained, data, result, {**figures_of(said), "metrics": own})


def _own_data(options: Options, trained: TrainedRun) -> _Data:
    """A split of the data that the run trained on."""
    place = [f"--data_dir={trained.config.data_dir}"] if trained.config.data_dir else []
    as_other = shlex.join([f"--dataset={trained.config.dataset}", *place])
    data = trained.data(f"put the old data back, or evaluate these as other images: {as_other}")
    name = data.evaluated_name if options.split == "auto" else options.split
    if name not in data.splits:
        raise _no_split(name, f"the data of {trained.model_dir.root}", list(data.splits))
    return _Data(name, data.splits[name], data.bad, "")


def _other_data(options: Options, trained: TrainedRun) -> _Data:
    """A split of other labelled images."""
    from trainer.data.labelled import sources
    from trainer.data.labelled.relabelled import relabelled

    config = dataclasses.replace(trained.config, dataset=options.dataset, data_dir=options.data_dir)
    place = f" in {options.data_dir}" if options.data_dir else ""
    data = sources.load(config, trained.image_shape)
    for warning in data.warnings:
        tell(f"lockstep: warning: {warning}")
    names = list(data.splits)
    name = options.split
    if name == "auto":
        name = names[0] if len(names) == 1 else next(each for each in ("test", "validation") if each in names)
    if name not in names:
        raise _no_split(name, f"--dataset={options.dataset}{place}", names)
    split = relabelled(data.splits[name], data.classes, trained.classes)
    return _Data(name, split, data.bad, f"{options.dataset}{place}")


def _no_split(name: str, where: str, names: list[str]) -> UsageError:
    there = "class folders alone, which are evaluated as a whole" if names == ["all"] else ", ".join(names)
    return UsageError(f"--split={name}: {where} has no such split; there are: {there}",
                      "leave --split out" if len(names) == 1 else f"--split={names[-1]}")


def _print(options: Options, trained: TrainedRun, data: _Data, result: "Evaluation",
           figures: Mapping[str, Any]) -> None:
    """Prints the result, as JSON or in sentences."""
    step, classes = trained.manifest["step"], trained.classes
    low, high = figures["accuracy_interval"]
    if options.json:
        say(json.dumps({"step": step, "epoch": trained.manifest["epoch"], "split": data.name,
                        "dataset": options.dataset or trained.config.dataset,
                        "data_dir": options.data_dir if options.dataset else trained.config.data_dir,
                        "own_data": not data.of, "tta": options.tta, "eval_accuracy": result.accuracy,
                        "eval_loss": result.loss, "examples": result.examples, "bad_records": data.bad.count,
                        "accuracy_interval": [low, high], "macro_f1": figures["macro_f1"],
                        **({"metrics": figures["metrics"]} if figures["metrics"] else {}),
                        "class_accuracy": dict(zip(classes, result.class_accuracy, strict=True))}))
        return
    split = "" if data.name == "all" else f"{data.name} "
    averaged = {"none": "", "flip": " (mean with the mirror image)",
                "flip_translate": " (mean over mirrored and moved images)"}[options.tta]
    say(f"step {step:,}: {split}accuracy {result.accuracy:.2%}{averaged}, loss {result.loss:.4f}, over "
        f"{result.examples:,} examples{f' of other images, {data.of}' if data.of else ''} "
        f"({trained.runtime.sentence()})")
    say(f"95 % interval {low:.2%} to {high:.2%}; macro F1 "
        + ("without meaning" if figures["macro_f1"] is None else f"{figures['macro_f1']:.4f}"))
    for name, value in figures["metrics"].items():
        say(f"{name} {'without meaning' if value is None else f'{value:.6g}'}")
    ranked = sorted((accuracy, name) for accuracy, name in zip(result.class_accuracy, classes, strict=True)
                    if accuracy is not None)
    shown = ranked if len(ranked) <= _LISTED else ranked[:_LISTED]
    without = len(classes) - len(ranked)
    say(f"by class, the worst first{'' if shown is ranked else f' (of {len(ranked):,})'}: "
        + ", ".join(f"{name} {accuracy:.1%}" for accuracy, name in shown)
        + (f"; no examples of {without:,} other classes" if without else ""))
