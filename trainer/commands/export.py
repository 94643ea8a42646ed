"""`export`: writes the exports of a run again, from any checkpoint."""

import dataclasses
from typing import TYPE_CHECKING

from trainer.commands.common.trained_run import TrainedOptions, TrainedRun
from trainer.config import EXPORTS, OTHER_EXPORTS
from trainer.errors import DataError, UsageError
from trainer.options import option
from trainer.process.exit import say, tell
from trainer.storage.model_dir import ModelDir

if TYPE_CHECKING:
    from trainer.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer export --model_dir=D: writes formats into export/ again and measures them; others stay."""

    export: tuple[str, ...] = option(EXPORTS, "comma list of formats", choices=(*EXPORTS, *OTHER_EXPORTS))

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
    trained = TrainedRun(options, strategy="one_device")
    from trainer.export import comparison
    from trainer.export.exporter import export
    from trainer.export.measure import Measurement
    from trainer.export.selection import require_calibration_data, temperature_of

    data, model, step = _data(options, trained), trained.model("float32"), trained.manifest["step"]
    temperature = None
    if data:
        job = trained.job(data, export=options.export)
        require_calibration_data(job.config, data)
        measurement = Measurement(job)
        predictions = measurement.predictions(model, step)
        accuracy = predictions.accuracy
        if job.config.calibrate_export:
            temperature = temperature_of(predictions if measurement.split_name == "validation" else
                                         measurement.predictions(model, step, "validation"))
        words = f"{measurement.split_name} accuracy {{accuracy:.2%}}"
    else:
        job = trained.job(comparison.drawn(trained.classes, model), export=options.export)
        measurement, accuracy = comparison.Comparison(job, model), None
        words = "not measured; answers as the model on {inputs:,} drawn images"
        if job.config.calibrate_export:
            tell("lockstep: warning: without the validation split no temperature is fitted: these exports are not "
                 "calibrated")
    exports = export(job, model, measurement, accuracy, folder=trained.model_dir.export, step=step,
                     temperature=temperature, keeps=True)
    say(f"step {step:,}:")
    for name, result in exports.results.items():
        say(f"{name:<14} {trained.model_dir.root / result['path']}   {words.format(**result)}, "
            f"{result['bytes'] / 1e6:.2f} MB")
    exports.require_all()


def _data(options: Options, trained: TrainedRun) -> "Dataset | None":
    """The data that the run trained on; None, with a warning, if it is gone, unless the user says where it is.

    Raises:
        DataError, UsageError: if the data isn't where the user says.
    """
    try:
        return trained.data()
    except (DataError, UsageError) as error:
        if options.data_dir:
            raise
        tell(f"lockstep: warning: {error.cause}\n  so the exports are not measured; they are compared with the model "
             "on drawn images alone")
        return None
