"""What the commands on a finished or stopped run share: its settings, its data, its model."""

import dataclasses
from typing import TYPE_CHECKING, Any

from trainer.config import Config
from trainer.distributed.cluster import Cluster
from trainer.errors import DataError
from trainer.options import Checked, option
from trainer.process.exit import tell
from trainer.process.user_code import origin_of
from trainer.storage.model_dir import ModelDir

if TYPE_CHECKING:
    import keras

    from trainer.data.dataset import Dataset
    from trainer.plan import Job


@dataclasses.dataclass(frozen=True)
class TrainedOptions(Checked):
    """The options of a command on a run and one of its checkpoints."""

    model_dir: str = option("", "folder of the run")
    checkpoint: str = option("auto", "checkpoint to use: latest, best, or a step; auto: the one that the run exports")
    data_dir: str = option("", "folder of the data; default: the same as in training")
    num_gpus: int = option(-1, "number of GPUs: -1 for one where there is any, for others may be training on the rest; "
                           "0 for the CPU; N for exactly N or an error (predict and export compute on the first)",
                           least=-1)

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        problems = super().problems()
        if not self.model_dir:
            problems.append("--model_dir is needed: the folder of a run")
        if not (self.checkpoint in ("auto", "latest", "best") or self.checkpoint.isdecimal()):
            problems.append(f"--checkpoint must be auto, latest, best or a step; received {self.checkpoint!r}")
        return problems


class TrainedRun:
    """The settings, the data and a checkpoint of a run, with devices that are started.

    Args:
        options: The run and its checkpoint.
        **devices: Further settings for `runtime.start`: virtual_devices, strategy.

    Attributes:
        model_dir: The run's folder.
        config: The run's settings, with the options' devices and data_dir.
        runtime: The devices, started.
        trained_replicas: Number of replicas that trained it.
        classes: The class names of the run's data, in the order of the labels.
        image_shape: (height, width, channels) of the model's input.
        checkpoints: The run's checkpoints.
        manifest: The manifest of the checkpoint that the options name.

    Raises:
        DataError: if the folder is not a run directory, or has no such checkpoint.
        DeviceError: if a device that was asked for is missing.
        StorageError: if the checkpoint is damaged.
    """

    def __init__(self, options: TrainedOptions, **devices: Any) -> None:
        from trainer.process import tf_import  # noqa: F401  first: it keeps back what TensorFlow logs while it is imported

        # isort: split
        from trainer.checkpoint.checkpoints import Checkpoints
        from trainer.distributed import runtime
        from trainer.distributed.devices import choice

        self.model_dir = ModelDir(options.model_dir)
        saved = self.model_dir.read_config()
        config = Config.from_mapping(saved["given"])
        num_gpus = 1 if options.num_gpus < 0 and choice.gpu_count() else options.num_gpus
        self.config = dataclasses.replace(config, model_dir=options.model_dir, num_gpus=num_gpus,
                                          data_dir=options.data_dir or config.data_dir,
                                          **{"virtual_devices": 0, "strategy": "auto", "microbatch": "0", **devices})
        for name in (config.model, config.dataset, *config.metrics):
            if origin := origin_of(name):
                tell(f"lockstep: {self.model_dir.root} names code, which may be imported: {origin}")
        self.trained_replicas = saved.get("replicas", 1)
        self.classes: list[str] = saved["data"]["classes"]
        height, width, channels = saved["data"]["image_shape"]
        self.image_shape: tuple[int, int, int] = height, width, channels
        self.checkpoints = Checkpoints(self.model_dir.checkpoints)
        self.manifest = self._find(options.checkpoint, bool(saved["data"].get("validation_examples")))
        self.runtime = runtime.start(self.config, Cluster())
        for warning in self.runtime.warnings:
            tell(f"lockstep: warning: {warning}")

    def _find(self, name: str, has_validation: bool) -> dict[str, Any]:
        """The manifest of the checkpoint that a user names."""
        if name == "auto":
            best = self.config.exports_best(has_validation) and self.checkpoints.best_step() is not None
            name = "best" if best else "latest"
        return self.checkpoints.find(name)

    def model(self, precision: str | None = None) -> "keras.Model":
        """The model with the checkpoint's weights: with `--ema_decay`, their averages.

        Args:
            precision: The precision of its computation; None for the runtime's.
        """
        from trainer import models
        from trainer.train.state import evaluated_variables

        with self.runtime.strategy.scope():
            model = models.build(self.config.model, len(self.classes), self.image_shape,
                                 precision or self.runtime.precision, self.config.drop_path)
        self.checkpoints.restore(evaluated_variables(model, self.config), self.manifest)
        return model

    def job(self, data: "Dataset", **settings: Any) -> "Job":
        """The `Job` of the run on one replica.

        Args:
            data: Its data set.
            **settings: Settings that replace the run's own.
        """
        from trainer.plan import Job, make_plan

        config = dataclasses.replace(self.config, **settings)
        return Job(config, make_plan(config, data.train.size, 1), self.runtime, data)

    def data(self, otherwise: str | None = None) -> "Dataset":
        """The data set that the run trained on.

        Args:
            otherwise: What the user can do if the data has changed; None for what training says.

        Raises:
            DataError: if the data has changed.
        """
        from trainer.data.dataset import load
        from trainer.storage import bit_versions

        data = load(self.config)
        bit_versions.require(bit_versions.of_manifest(self.manifest), data.versions)
        try:
            data.require_same(self.manifest["data"], self.model_dir.data_parts())
        except DataError as error:
            raise DataError(error.cause, otherwise or error.fix) from None
        return data
