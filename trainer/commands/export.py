"""`export`: writes the exports of a run again, from any checkpoint."""

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from trainer.commands.common import export_table
from trainer.commands.common.trained_run import TrainedOptions, TrainedRun
from trainer.config import EXPORTS, OTHER_EXPORTS
from trainer.errors import DataError, UsageError
from trainer.export.formats.libraries import require_libraries
from trainer.options import option
from trainer.process.exit import say, tell
from trainer.storage.model_dir import ModelDir

if TYPE_CHECKING:
    from trainer.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer export --model_dir=D: writes formats into export/ again and measures them; others stay."""

    export: tuple[str, ...] = option(EXPORTS, "comma list of formats", choices=(*EXPORTS, *OTHER_EXPORTS))
    table: bool = option(False, "print accuracy, size and latency of what is in export/ already; nothing is written")
    json: bool = option(False, "print a JSON object of format to path, accuracy, bytes, latency and more")

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        return super().problems() + ([] if self.export else ["--export names no format"])


def run(options: Options) -> None:
    """Writes the exports, and prints their paths, accuracies and sizes; with `--table`, prints those that are there.

    Raises:
        StorageError: after that, if a format failed; the others stay.
        UsageError: if a format needs a library that isn't installed.
    """
    model_dir = ModelDir(options.model_dir)
    if options.table:
        export_table.show(export_table.entries_of(model_dir), options.json)
        return
    require_libraries(options.export)
    model_dir.read_config()  # nothing is written into a folder that is not a run directory
    model_dir.lock()  # a run that is training may be about to export, too
    try:
        _export(options)
    finally:
        model_dir.unlock()


def _export(options: Options) -> None:
    trained = TrainedRun(options, strategy="one_device")
    from trainer.export import comparison
    from trainer.export.card.model_card import ModelCard
    from trainer.export.exporter import export
    from trainer.export.measure import Measurement
    from trainer.export.selection import require_calibration_data, selected_on, temperature_of
    from trainer.quality.figures import figures_of

    data, model, step = _data(options, trained), trained.model("float32"), trained.manifest["step"]
    temperature, quality = None, _measured_before(trained.model_dir, step)
    if data:
        job = trained.job(data, export=options.export)
        require_calibration_data(job.config, data)
        measurement = Measurement(job)
        predictions = measurement.predictions(model, step)
        accuracy = predictions.accuracy
        if job.config.calibrate_export:
            temperature = temperature_of(predictions if measurement.split_name == "validation" else
                                         measurement.predictions(model, step, "validation"))
        quality = figures_of(predictions, temperature)
        words = f"{measurement.split_name} accuracy {{accuracy:.2%}}"
    else:
        job = trained.job(comparison.drawn(trained.classes, model), export=options.export)
        measurement, accuracy = comparison.Comparison(job, model), None
        words = "not measured; answers as the model on {inputs:,} drawn images"
        if job.config.calibrate_export:
            tell("lockstep: warning: without the validation split no temperature is fitted: these exports are not "
                 "calibrated")
    card = ModelCard(trained.model_dir.read_config(), step, quality, selected_on(job) if data else None,
                     trained.manifest.get("initialized_from"))
    exports = export(job, model, measurement, accuracy, folder=trained.model_dir.export, step=step,
                     temperature=temperature, keeps=True, card=card)
    if options.json:
        say(json.dumps(exports.results))
    else:
        say(f"step {step:,}:")
        for name, result in exports.results.items():
            say(f"{name:<14} {trained.model_dir.root / result['path']}   {words.format(**result)}, "
                f"{result['bytes'] / 1e6:.2f} MB")
    exports.require_all()


def _measured_before(model_dir: ModelDir, step: int) -> dict[str, Any] | None:
    """The figures in result.json, if they are of the weights of this step; None if there are none."""
    with contextlib.suppress(OSError, ValueError):
        quality = json.loads(model_dir.result.read_text(encoding="utf-8")).get("quality") or {}
        return quality if quality.get("step") == step else None
    return None


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
