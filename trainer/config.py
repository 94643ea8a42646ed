"""Every setting of a run as one frozen value, with the checks that need no TensorFlow.

The fields of `Config` are the flags of `trainer.main`: flags.py makes a flag of each, so a setting
is declared, documented and checked here and nowhere else; what several settings must keep together
is in rules/.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trainer.options import Checked, kept_values, names_in, option
from trainer.rules.combinations import broken_rules

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "lamb": "Lamb", "lion": "Lion", "muon": "Muon"}
MODELS = names_in("models/zoo")
DATASETS = names_in("data/sources")
# Mixup comes first where both are on, as it always did: each example draws among them in this order.
PAIR_AUGMENTATIONS = tuple(sorted(names_in("data/augment/pairs"), reverse=True))
AUGMENTATIONS = (*names_in("data/augment/images"), *PAIR_AUGMENTATIONS)
TRACKERS = names_in("reporting/trackers/clients")
LOSSES = ("cross_entropy", "focal", "bce")
EXPORTS = ("h5", "keras", "saved_model")
OTHER_EXPORTS = ("litert", "litert_float16", "litert_int8", "onnx", "openvino")
LARGEST_DEFAULT_BATCH = 128
FUNCTION = (r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "package.module:function")


class SettingChange(NamedTuple):
    """A setting that two configurations have otherwise.

    Args:
        name: The setting's name.
        value: Its value in the one.
        other_value: Its value in the other.
        another_run: Whether the difference makes them two runs.
    """

    name: str
    value: Any
    other_value: Any
    another_run: bool


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    """python -m trainer.main --FLAGS: trains an image classifier, or goes on with a run that was stopped."""

    # What the run writes, and whether it may resume what its folder holds.
    model_dir: str = option("", "folder for everything that the run writes; default: runs/DATASET-MODEL")
    resume: str = option(
        "auto", "auto: resume from the last checkpoint if there is one; never: refuse a used model_dir; "
        "require: refuse an unused one", choices=("auto", "never", "require"))
    dry_run: bool = option(False, "try a short form of all that the run does, in a folder beside --model_dir that is "
                           "removed afterwards, and say what the run would take")
    seed: int = option(0, "seed of everything random", least=0, most=2**31 - 1, another_run=True)

    # Devices.
    num_gpus: int = option(
        -1, "number of GPUs: -1 for all visible, 0 for the CPU, N for exactly N or an error", least=-1)
    virtual_devices: int = option(
        0, "split the CPU (or each GPU) into N logical devices with a replica on each; 0: don't", least=0, most=64)
    strategy: str = option("auto", "distribution strategy; auto: from TF_CONFIG or Slurm's variables, then from the "
                           "device count", choices=("auto", "one_device", "mirrored", "multi_worker"))
    start_timeout: float = option(600.0, "seconds to wait for all workers of a job before the first step", above=0)
    hang_timeout: float = option(600.0, "seconds without progress in training after which a run prints where every "
                                 "thread stands, and ends; six times as many while it reads data, compiles, saves or "
                                 "exports", above=0)
    precision: str = option(
        "auto", "precision of the computation; auto: bfloat16 on GPUs of compute capability 8.0 and up, float16"
        " on 7.x, else float32", choices=("auto", "float32", "bfloat16", "float16"))
    xla: str = option("auto", "compile steps with XLA; auto: on for GPUs, off for CPUs", choices=("auto", "on", "off"))
    tf32: str = option("auto", "round products of float32 matrices on GPUs as TensorFloat-32; auto: on from compute "
                       "capability 8.0 on, TensorFlow's default", choices=("auto", "on", "off"))
    all_reduce: str = option(
        "float32", "type in which gradients travel between replicas and are summed; bfloat16: half of the traffic, for "
        "large models on several machines, and 8 bits of each sum", choices=("float32", "bfloat16"))
    deterministic: bool = option(False, "compute the same bits in every start on the same GPUs: no kernel is chosen by "
                                 "timing, and NCCL sums in a fixed order; slower. CPUs do so without it")

    # Data.
    dataset: str = option(
        "cifar10", "data set: cifar10; shapes, drawn by the program, nothing to download; folder, images in "
        "class folders; csv, images that CSV files list; records, what python -m trainer prepare wrote; or a function "
        "that gets the settings and returns (classes, (images, labels), (images, labels))", choices=DATASETS,
        pattern=(f"tfds:[\\w/.:-]+|{FUNCTION[0]}", f"tfds:NAME or {FUNCTION[1]}"), another_run=True)
    data_dir: str = option("", "folder of the data, or a CSV file for csv; default for cifar10: Keras's cache")
    image_size: int = option(
        0, "side of the model's input in pixels, for folder, csv and records; 0: the images' own if all are squares of "
        "one size of up to 224, else 224", least=0, most=4096, another_run=True)
    validation_fraction: float | None = option(
        None, "fraction of the training images that is held back to validate on, class by class; default: 0.1 where "
        "the data has a training split alone, else 0", least=0, most=0.9, another_run=True)
    resize: str = option("crop", "how an image becomes a square: crop, the square in the middle; squeeze, all of it, "
                         "out of shape; pad, all of it, on black", choices=("crop", "squeeze", "pad"), another_run=True)
    lanes: int = option(64, "number of read streams for --dataset=records; reduced to a divisor of --batch_size",
                        least=1, most=65536, another_run=True)
    max_bad_records: int = option(
        0, "number of unreadable images and files of other kinds to go on with; they are counted and have no weight",
        least=0)
    batch_size: int | None = option(
        None, "global batch size in examples; divisible by the number of replicas; default: 128, or what makes ten "
        "steps of an epoch of fewer than 1,280 images", least=1, another_run=True)
    accumulate_steps: int = option(
        1, "a step, one update, takes this many times --batch_size examples, in as many passes", least=1,
        another_run=True)
    microbatch: str = option(
        "0", "--batch_size goes in passes of N rows, over all replicas, where it doesn't fit into memory; auto: the "
        "largest that fit, tried before the run and remembered in it; 0: in one pass", choices=("auto",),
        pattern=(r"\d{1,9}", "N"), another_run=True)
    input: str = option(
        "auto", "where decoded images live: device, and only indices are sent; host, where batches are put together; "
        "auto: device on GPUs with XLA, up to 1 GiB", choices=("auto", "device", "host"))
    sampling: str = option(
        "natural", "how often classes come; natural: each example once an epoch; balanced: all classes equally often, "
        "each example once before it comes again, and as many examples an epoch as without it; records are then read "
        "in no order, for which a disk must be fast", choices=("natural", "balanced"), another_run=True)
    augment: tuple[str, ...] = option(
        (), "comma list of augmentations: flip, alternating_flip (in each epoch those that weren't flipped in the one "
        "before), crop (images of up to 64 pixels: pad by 4; larger ones: 8 to 100 % of the area), translate (by up to "
        "2 pixels, onto a mirrored border), cutout, erasing, jitter, randaugment, trivial, mixup, cutmix, and "
        "functions of yours, which get (images, seeds)", choices=AUGMENTATIONS, pattern=FUNCTION, another_run=True)

    train_sizes: tuple[str, ...] = option(
        (), "comma list of SIZE@EPOCH, such as 128,160@6,192@12: side in pixels to which training makes its images "
        "smaller, each from an epoch on, the first from the start; evaluation and exports see them as they are",
        choices=("",), pattern=(r"[1-9]\d{0,3}(@\d+(\.\d+)?)?", "SIZE@EPOCH"), another_run=True)

    # Model and optimizer.
    model: str = option(
        "cnn3", "model: cnn3 and cnn2 are the reference CNNs; keras:NAME is a network of keras.applications, "
        "untrained; a function gets (classes, image_shape) and returns a functional keras.Model from pixels of 0 "
        "to 255 to logits", choices=MODELS, pattern=(f"keras:\\w+|{FUNCTION[0]}", f"keras:NAME or {FUNCTION[1]}"),
        another_run=True)
    optimizer: str = option("adam", "optimizer, Keras's; sgd uses Nesterov momentum", choices=tuple(OPTIMIZERS),
                            another_run=True)
    learning_rate: float = option(0.001, "peak learning rate", above=0, another_run=True)
    scale_learning_rate: str = option(
        "none", "multiply --learning_rate by the examples of a step / 256 (linear), or by the root of that (sqrt)",
        choices=("none", "linear", "sqrt"), another_run=True)
    momentum: float = option(0.9, "momentum of sgd and muon", least=0, most=0.9999, another_run=True)
    weight_decay: float = option(
        0.0, "decoupled weight decay, per step and unit of learning rate, of kernels; biases and normalization have "
        "none", least=0, another_run=True)
    bias_learning_rate_scale: float = option(
        1.0, "multiple of the learning rate at which the biases of batch norm and other normalization train", above=0,
        another_run=True)
    head_learning_rate: float | None = option(
        None, "peak learning rate of the last layer, scaled as --learning_rate is; default: --learning_rate", above=0,
        another_run=True)
    layer_decay: float = option(
        1.0, "factor of the learning rate from each layer with a kernel to the one before it, such as 0.8 to fine-tune",
        above=0, most=1, another_run=True)
    lookahead_steps: int = option(
        0, "lookahead: after this many updates, the weights go back to --lookahead_alpha of the way that they went; 0: "
        "don't", least=0, another_run=True)
    lookahead_alpha: float = option(0.5, "share of the way that lookahead keeps", above=0, most=1, another_run=True)
    schedule: str = option(
        "constant", "learning rate schedule after the warm-up; step: a tenth at one half and again at three quarters",
        choices=("constant", "cosine", "linear", "step"), another_run=True)
    warmup_epochs: float = option(0.0, "length in epochs of the linear warm-up of the learning rate", least=0,
                                  another_run=True)
    loss: str = option(
        "cross_entropy", "loss of training; focal: examples that are right already count less; bce: each class's "
        "sigmoid by itself; or a function of yours, which gets (labels, logits). With all of them eval_loss is "
        "cross-entropy, and exports give softmax's probabilities", choices=LOSSES, pattern=FUNCTION, another_run=True)
    class_weights: str = option("none", "weights of the classes in the loss; balanced: inverse to their frequency",
                                choices=("none", "balanced"), another_run=True)
    label_smoothing: float = option(0.0, "fraction of the target that is spread over all classes", least=0, most=0.99,
                                    another_run=True)
    init_from: str = option(
        "", "weights that a new run begins with: a run's folder (what it exports), one of its checkpoints, a .keras, "
        ".h5 or .weights.h5 file of the same model, or imagenet for keras:NAME; the last layer is new where the "
        "classes are others", another_run=True)
    freeze: str = option(
        "", "regular expression; layers whose whole name it matches keep their weights, and batch norm in them its "
        "averages; the last layer trains in any case, so that .* trains it alone", another_run=True)
    drop_path: float = option(
        0.0, "rate at which training drops the last residual block of an example, and block l of L at l/L of it; for "
        "resnet18, resnet20 and resnet50; 0: none", least=0, most=0.99, another_run=True)
    ema_decay: float = option(
        0.0, "decay of the average of the weights over the steps, such as 0.999; the average is what is evaluated, "
        "chosen and exported then; 0: no average", least=0, most=0.999999, another_run=True)
    sync_batch_norm: bool = option(
        False, "batch norm takes its moments over the rows of all replicas; forward and backward pass are then not "
        "compiled by XLA, which takes no sum over replicas", another_run=True)
    clip_norm: float = option(0.0, "global norm that gradients are scaled down to; 0: don't", least=0, another_run=True)

    # How long, and how often.
    epochs: float = option(10.0, "length of the run in epochs; may be a fraction", above=0)
    max_steps: int | None = option(None, "length of the run in steps, if sooner than --epochs", least=1)
    max_hours: float | None = option(
        None, "end the run after this many hours over all its starts, if sooner; evaluating and exporting come after. "
        "The learning rate's schedule doesn't know of it", above=0)
    eval_every_epochs: float = option(
        1.0, "epochs from one evaluation of the whole validation split to the next (of the test split, where that is "
        "the only one); there is one at the end, too", above=0)
    log_every_steps: int = option(
        50, "steps from one line of metrics.jsonl and point in TensorBoard to the next", least=1)
    patience: int = option(0, "stop after this number of evaluations without a better accuracy; 0: don't", least=0)
    target_accuracy: float = option(0.0, "stop once the evaluated accuracy (0 to 1) reaches this; 0: don't", least=0,
                                    most=1)
    checkpoint_every_steps: int = option(0, "steps from one checkpoint to the next; 0: none by steps", least=0)
    checkpoint_every_minutes: float = option(5.0, "minutes from one checkpoint to the next; 0: none by time", least=0)
    keep_checkpoints: int = option(3, "number of newest checkpoints that are kept, in addition to the best", least=1)
    max_bad_steps: int = option(
        20, "end the run after this number of steps in a row whose gradients aren't finite; steps of float16 whose "
        "loss scale can still come down don't count", least=1)
    spike_factor: float = option(
        10.0, "report losses over 0.5 and over this many times the median of the last 101, with the examples of the "
        "batch; 0: don't", least=0)

    # What comes out.
    log_gradient_norm: bool = option(
        False, "write the norm of each window's gradients, before clipping; with --clip_norm it is written anyway")
    metrics: tuple[str, ...] = option(
        (), "comma list of functions of yours that get what the model said of the evaluated split, and return a number",
        choices=("",), pattern=FUNCTION)
    ledger: bool = option(False, "write the example ids of each step into ledger.jsonl")
    trackers: tuple[str, ...] = option(
        (), "comma list of trackers that get settings, metrics and results, each by its own client (the extra of that "
        "name) and with that client's own variables; they get a step once a checkpoint covers it", choices=TRACKERS)
    notify: str = option(
        "", "whom to tell when the run ends, fails or stops: a URL, http(s) for a webhook that gets JSON, any other "
        "for Apprise (extra notify); or a program with arguments, which gets the message on stdin", secret=True)
    profile_steps: str = option(
        "", "steps A-B whose profile is written into tensorboard/, such as 100-110; not the first of a start, which "
        "compiles", choices=("",), pattern=(r"\d{1,9}[-,]\d{1,9}", "A-B"))
    export_checkpoint: str = option(
        "auto", "weights that are exported: last, best (of the highest evaluated accuracy); auto: best where there is "
        "a validation split or --patience is on, else last", choices=("auto", "last", "best"))
    calibrate_export: bool = option(False, "divide the logits of what is exported by the temperature that calibrates "
                                    "its probabilities, fitted on the validation split; answers stay the same")
    export: tuple[str, ...] | None = option(
        None, "comma list of export formats, or none; each is tried beside the first steps, and one that is named here "
        f"and can't hold the model ends the run; default: {','.join(EXPORTS)}",
        choices=(*EXPORTS, *OTHER_EXPORTS, "none"))

    def __post_init__(self) -> None:
        if not self.model_dir:
            names = [name.split(":")[-1].replace("/", "-") for name in (self.dataset, self.model)]
            object.__setattr__(self, "model_dir", str(Path("runs") / "-".join(names)))

    def problems(self) -> list[str]:
        """All that is wrong: what `Checked.problems` lists, and each broken rule that involves several settings."""
        problems = super().problems()
        return problems + broken_rules(self, {line.split()[0] for line in problems})

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the exports; () for none."""
        return EXPORTS if self.export is None else tuple(name for name in self.export if name != "none")

    @property
    def profiled(self) -> tuple[int, int] | None:
        """The first and the last step of `--profile_steps`; None if there are none."""
        match = re.fullmatch(r"(\d+)[-,](\d+)", self.profile_steps)
        return (int(match[1]), int(match[2])) if match else None

    @property
    def knows_gradient_norm(self) -> bool:
        """Whether a step works out the global norm of its gradients."""
        return self.log_gradient_norm or self.clip_norm > 0

    @property
    def known_batch_size(self) -> int:
        """`--batch_size`; where it isn't given, and the data hasn't decided it yet, the largest that it may be."""
        return self.batch_size or LARGEST_DEFAULT_BATCH

    @property
    def size_starts(self) -> list[tuple[int, float]]:
        """(side in pixels, the epoch from which on it is the size of training) of each of `--train_sizes`."""
        parts = [text.partition("@") for text in self.train_sizes]
        return [(int(side), float(epoch or 0)) for side, _, epoch in parts]

    @property
    def microbatch_rows(self) -> int:
        """Rows of a pass over all replicas, as far as the settings say: with `auto`, the whole batch."""
        return (0 if self.microbatch == "auto" else int(self.microbatch)) or self.known_batch_size

    def exports_best(self, has_validation: bool) -> bool:
        """Whether the best weights are exported, and not the last.

        Args:
            has_validation: Whether the data has a validation split.
        """
        return self.export_checkpoint == "best" or (
            self.export_checkpoint == "auto" and (has_validation or self.patience > 0))

    def to_json(self) -> str:
        """The settings as the text of a JSON object, for config.json; a secret isn't in it."""
        return json.dumps(kept_values(self), indent=2)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Config":
        """The inverse of `to_json`, from the parsed object.

        Args:
            values: Name to value. Names that this version doesn't know are left out, and settings that
                `values` lacks get their defaults: an older run stays readable.

        Returns:
            The `Config`; its values are not checked.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        settings: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                                    for name, value in values.items() if name in names}
        return cls(**settings)

    def inherit(self, other: "Config") -> "Config":
        """These settings, and for those that aren't given and decide which run it is, another configuration's.

        Args:
            other: The configuration of the run that goes on.
        """
        missing = {field.name: getattr(other, field.name) for field in dataclasses.fields(self)
                   if field.metadata["another_run"] and getattr(self, field.name) is None}
        return dataclasses.replace(self, **missing)

    def differences(self, other: "Config") -> list[SettingChange]:
        """The settings that another configuration has otherwise.

        Args:
            other: The configuration to compare with.

        Returns:
            A `SettingChange` for each, in the order of the fields; `value` is this configuration's.
        """
        # A schedule that falls follows from where the run ends.
        length = set() if self.schedule == "constant" else {"epochs", "max_steps"}
        same = {"export"} if self.formats == other.formats else set()
        values, other_values = kept_values(self), kept_values(other)
        return [SettingChange(field.name, value, other_value, field.metadata["another_run"] or field.name in length)
                for field in dataclasses.fields(self) if field.name not in same
                if (value := values[field.name]) != (other_value := other_values[field.name])]


def mixes(augment: Collection[str]) -> bool:
    """Whether an `--augment` joins pairs of examples."""
    return bool(set(PAIR_AUGMENTATIONS) & set(augment))
