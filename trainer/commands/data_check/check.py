"""All that `doctor --data` does: what can't be used ends it with 65; what is only odd is told."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from trainer.commands.data_check.reading_speed import say_reading_speed
from trainer.config import Config
from trainer.errors import DataError, UsageError
from trainer.process.exit import say, tell
from trainer.process.user_code import origin_of

if TYPE_CHECKING:
    import numpy as np

    from trainer.commands.doctor import Options
    from trainer.data.audit.findings import Findings
    from trainer.data.audit.suspects import Suspects
    from trainer.data.dataset import Dataset
    from trainer.storage.model_dir import ModelDir

_DARK = 64  # of 255: images whose values end below look black


def check_data(options: Options) -> None:
    """Reads the data, prints what is wrong or odd, and writes the page.

    Raises:
        DataError: with everything that can't be used; or if the data isn't that of the run.
        UsageError: if the data can't be that of the run.
    """
    from trainer.process import tf_import  # noqa: F401  first: it keeps back what TensorFlow logs while it is imported

    # isort: split
    from trainer.data.audit.findings import find
    from trainer.data.audit.scan import scan
    from trainer.data.dataset import load

    out = tell if options.json else say  # stdout holds the object alone
    model_dir, config = _settings(options)
    data = load(dataclasses.replace(config, max_bad_records=2**31))
    suspects = _suspects(model_dir, data) if model_dir else []
    out(data.sentence())
    for warning in data.warnings:
        out(f"warning: {warning}")
    scanned = scan(data, options.images)
    findings = find(data, scanned, suspects)
    warnings = [] if data.bad.count else [_unused_range(data) or _darkness(scanned.table)]
    for warning in filter(None, [*warnings, *findings.sentences()]):
        out(f"warning: {warning}")
    _write(options, findings, model_dir)
    if data.bad.count:
        raise DataError("\n  ".join([f"{data.bad.count:,} images or files can't be used:", *data.bad.names()]),
                        f"repair or remove them, or train without them: --max_bad_records={data.bad.count}")
    total, read = sum(split.size for split in data.splits.values()), len(scanned.table)
    out(f"{total:,} images read: all of them can be used" if read == total else
        f"{read:,} of {total:,} images read: all of these can be used")
    if not options.json:
        say_reading_speed(data.train)


def _settings(options: Options) -> tuple[ModelDir | None, Config]:
    """(the run's folder, if one is given; the settings by which the data is read)."""
    from trainer.storage.model_dir import ModelDir

    if not options.model_dir:
        return None, Config(dataset=options.dataset, data_dir=options.data_dir,
                            validation_fraction=options.validation_fraction)
    model_dir = ModelDir(options.model_dir)
    config = Config.from_mapping(model_dir.read_config()["given"])
    if options.dataset not in (Config.__dataclass_fields__["dataset"].default, config.dataset):
        raise UsageError(f"the run {options.model_dir} has --dataset={config.dataset}; received "
                         f"--dataset={options.dataset}", "leave --dataset out: the data is the run's")
    if origin := origin_of(config.dataset):
        tell(f"lockstep: {model_dir.root} names code, which may be imported: {origin}")
    fraction = config.validation_fraction if options.validation_fraction is None else options.validation_fraction
    return model_dir, dataclasses.replace(config, model_dir=options.model_dir, validation_fraction=fraction,
                                          data_dir=options.data_dir or config.data_dir)


def _suspects(model_dir: ModelDir, data: Dataset) -> list[Suspects]:
    """Labels that are likely wrong, of each split that the run was measured on."""
    from trainer.data.audit.suspects import suspects_of
    from trainer.quality.predictions import Predictions

    try:
        data.require_same(model_dir.read_config()["data"]["fingerprint"], model_dir.data_parts())
    except DataError as error:
        raise DataError(error.cause, "put the old data back, set --data_dir to its folder, or leave --model_dir out"
                        ) from None
    paths = [path for path in (model_dir.validation_predictions,) if path.exists()]
    found = []
    for path in (model_dir.predictions, *paths):
        predictions = Predictions.read(path)
        suspects = suspects_of(predictions, data)
        if suspects is None:
            tell(f"lockstep: warning: {path} has no probabilities, too many to be kept: no labels are doubted")
        else:
            found.append(suspects)
    return found


def _write(options: Options, findings: Findings, model_dir: ModelDir | None) -> None:
    """Writes the page, where it is asked for or beside the report of a run; prints the object, if it is asked for."""
    path = options.out or (str(model_dir.report / "data.html") if model_dir and model_dir.report.is_dir() else "")
    if path:
        from trainer.reporting.page.data import data_page
        from trainer.storage.durable import write_durably

        write_durably(path, data_page(findings))
        tell(f"lockstep: written: {path}") if options.json else say(f"written: {path}")
    if options.json:
        say(json.dumps({**findings.as_json(), "unusable": findings.data.bad.names()}))


def _unused_range(data: Dataset) -> str | None:
    """What to tell where images of 16 bits use only the dark part of their range, or None."""
    from trainer.data.images import pillow_reader
    from trainer.data.images.encoded_split import EncodedSplit

    deepest = max((pillow_reader.deepest(split.load(example)) for split in data.splits.values()
                   if isinstance(split, EncodedSplit)
                   for example in (split.headers.traits & pillow_reader.DEEP).nonzero()[0].tolist()), default=None)
    if deepest is None or deepest >= 2**15:
        return None
    return (f"the images of 16 bits have values up to {deepest:,} of 65,535, so the model sees them as nearly black: "
            f"multiply them by {65535 // max(1, deepest)} before you train")


def _darkness(table: np.ndarray) -> str | None:
    """What to tell if half of the images have no bright pixel, as class numbers or 12 bits in 16; or None."""
    dark = table["greatest"][table["greatest"] < _DARK]
    if not len(dark) or 2 * len(dark) < len(table):
        return None
    most = int(dark.max())
    return (f"{len(dark):,} of {len(table):,} images have values up to {most} of 255, so the model sees them as nearly "
            f"black: multiply them by {255 // max(1, most)} before you train")
