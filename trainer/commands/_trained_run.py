"""What the commands on a finished or stopped run share: its settings, its data, its model."""

import dataclasses

from trainer.config import Config
from trainer.distributed.cluster import Cluster
from trainer.options import Checked, option
from trainer.process.exit import tell
from trainer.storage.model_dir import ModelDir


@dataclasses.dataclass(frozen=True)
class TrainedOptions(Checked):
    """A run and one of its checkpoints."""

    model_dir: str = option("", "of the run")
    checkpoint: str = option("latest", "latest, best, or a step")
    data_dir: str = option("", "where the data is; default: as in training")
    num_gpus: int = option(-1, "-1: all visible (predict and export: one); 0: CPU; N: exactly N or an error", least=-1)

    def problems(self):
        """See `Checked.problems`."""
        missing = [] if self.model_dir else ["--model_dir is needed: the folder of a run"]
        if not (self.checkpoint in ("latest", "best") or self.checkpoint.isdecimal()):
            missing.append(f"--checkpoint must be latest, best or a step; received {self.checkpoint!r}")
        return super().problems() + missing


class TrainedRun:
    """A run that is there to be used.

    Args:
        options: A `TrainedOptions`.
        **devices: Further settings for `runtime.start`, such as virtual_devices.

    Attributes:
        model_dir: Its `ModelDir`.
        config: Its `Config`, with the options' devices and data_dir.
        runtime: The `Runtime`, started.
        classes, image_shape: Of its data.
        manifest: Of the checkpoint that the options name.
    """

    def __init__(self, options, **devices):
        from trainer.process import tf_import  # noqa: F401  first: it keeps back what TensorFlow says while it is imported

        # isort: split
        from trainer.checkpoint.checkpoints import Checkpoints
        from trainer.distributed import runtime

        self.model_dir = ModelDir(options.model_dir)
        facts = self.model_dir.read_config()
        config = Config.from_mapping(facts["given"])
        self.config = dataclasses.replace(config, model_dir=options.model_dir, num_gpus=options.num_gpus,
                                          data_dir=options.data_dir or config.data_dir,
                                          **{"virtual_devices": 0, "strategy": "auto", **devices})
        self.classes, self.image_shape = facts["data"]["classes"], tuple(facts["data"]["image_shape"])
        self.checkpoints = Checkpoints(self.model_dir.checkpoints)
        self.manifest = self.checkpoints.find(options.checkpoint)
        self.runtime = runtime.start(self.config, Cluster())
        for warning in self.runtime.warnings:
            tell(f"lockstep: warning: {warning}")

    def model(self, precision=None):
        """The model with the checkpoint's weights.

        Args:
            precision: What it computes in; None for what the runtime says.

        Returns:
            A `keras.Model`.
        """
        from trainer import models
        from trainer.train.state import model_variables

        with self.runtime.strategy.scope():
            model = models.build(self.config.model, len(self.classes), self.image_shape,
                                 precision or self.runtime.precision)
        self.checkpoints.restore(model_variables(model), self.manifest)
        return model

    def job(self, **settings):
        """The `Job` of the run, with other settings where they are given."""
        from trainer.plan import Job, make_plan

        config, data = dataclasses.replace(self.config, **settings), self.data()
        return Job(config, make_plan(config, data.train.size, 1), self.runtime, data)

    def data(self):
        """The `Dataset` that the run trained on.

        Raises:
            DataError: if it is another one now.
        """
        from trainer.data.dataset import load

        data = load(self.config)
        data.require_same(self.manifest["data"], self.model_dir.data_parts())
        return data
