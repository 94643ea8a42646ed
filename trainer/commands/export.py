"""`export`: writes the exports of a run again, from any checkpoint."""

import dataclasses

from trainer.commands._trained_run import TrainedOptions, TrainedRun
from trainer.config import EXPORTS
from trainer.options import option
from trainer.process.exit import say
from trainer.storage.model_dir import ModelDir


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer export --model_dir=D: writes export/ again and measures each format."""

    export: tuple[str, ...] = option(EXPORTS, "comma list of formats", choices=EXPORTS)

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        return super().problems() + ([] if self.export else ["--export names no format"])


def run(options: Options) -> None:
    """Writes the exports, and prints their paths, accuracies and sizes.

    Raises:
        StorageError: after that, if a format failed; the others stay.
    """
    model_dir = ModelDir(options.model_dir)
    model_dir.read_config()  # nothing is written into a folder that is not a run directory
    model_dir.lock()  # a run that is training may be about to export, too
    try:
        _export(options)
    finally:
        model_dir.unlock()


def _export(options: Options) -> None:
    trained = TrainedRun(options, strategy="one_device" if options.num_gpus < 0 else "auto")
    from trainer.export.exporter import export
    from trainer.export.measure import Measurement

    job, model = trained.job(export=options.export), trained.model("float32")
    measurement = Measurement(job)
    exports = export(job, model, measurement, measurement.accuracy(model), folder=trained.model_dir.export)
    say(f"step {trained.manifest['step']:,}:")
    for name, result in exports.results.items():
        say(f"{name:<12} {trained.model_dir.root / result['path']}   {measurement.split_name} accuracy "
            f"{result['accuracy']:.2%}, {result['bytes'] / 1e6:.2f} MB")
    exports.require_all()
