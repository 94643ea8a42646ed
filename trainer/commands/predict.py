"""`predict`: class and probability of images."""

import csv
import dataclasses
import json
import operator
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.commands._trained_run import TrainedOptions, TrainedRun
from trainer.errors import DataError, UsageError
from trainer.options import option
from trainer.process.exit import printable

if TYPE_CHECKING:
    from trainer.data.bad_examples import BadExamples
    from trainer.data.sources.folder import FolderSplit

POSITIONAL = "files"
_CHUNK_SIZE = 64  # images


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer predict --model_dir=D FILE…: what the model sees in image files."""

    files: tuple[str, ...] = option((), "image files")
    json: bool = option(False, "print a JSON object per image and line")
    csv: bool = option(False, "print comma-separated values")

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        return (super().problems() + ([] if self.files else ["name at least one image file"])
                + (["--json and --csv exclude each other"] if self.json and self.csv else []))


def run(options: Options) -> None:
    """Prints a row per image.

    Raises:
        DataError: after all rows, naming the files that are not images that can be read.
        UsageError: if files can't be the model's images.
    """
    trained = TrainedRun(options, strategy="one_device" if options.num_gpus < 0 else "auto")
    from trainer.export.serving import Serving

    split, bad = _open(options.files, trained)
    serving = Serving(trained.model("float32"), trained.classes, trained.config.resize)
    classify = serving.of_pixels()
    rows = {}
    for examples, images, _ in split.identified_chunks(_CHUNK_SIZE):
        outputs = classify(images=images)
        answers = zip(examples.tolist(), outputs["probabilities"].numpy(), outputs["class"].numpy(), strict=True)
        for example, probabilities, best in answers:
            rows[example] = {
                "file": options.files[example], "class": trained.classes[best],
                "probability": float(probabilities[best]),
                "probabilities": dict(zip(trained.classes, map(float, probabilities), strict=True))}
    _print([rows[example] for example in sorted(rows)], options)
    if bad.count:
        raise DataError("\n  ".join([f"{bad.count:,} of {len(options.files):,} files can't be used:", *bad.names()]),
                        "use image files that can be read (JPEG, PNG, WebP, TIFF, …); the others are answered above")


def _open(names: Sequence[str], trained: TrainedRun) -> "tuple[FolderSplit, BadExamples]":
    """(image files as evaluation sees them, where those that can't be used are noted)."""
    import numpy as np

    from trainer.data.bad_examples import BadExamples
    from trainer.data.images import pillow_reader
    from trainer.data.images.crops import View
    from trainer.data.images.header_table import HeaderTable
    from trainer.data.sources.folder import FolderSplit

    height, width, channels = trained.image_shape
    if channels not in (1, 3):
        raise UsageError(f"predict reads images of 1 or 3 channels; the model of {trained.model_dir.root} takes "
                         f"{channels}", "use its export, which takes arrays")
    bad, headers = BadExamples(len(names)), HeaderTable.join([pillow_reader.read_header(name) for name in names])
    view = View(height, width, channels, trained.config.resize)
    return FolderSplit("", names, np.zeros(len(names)), headers, view, (), bad), bad


def _print(rows: Sequence[dict[str, Any]], options: Options) -> None:
    """Prints the rows as JSON, as comma-separated values, or as a table."""
    if options.json:
        for row in rows:
            print(json.dumps(row))
    elif options.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(["file", "class", "probability"])
        writer.writerows([row["file"], row["class"], f"{row['probability']:.6f}"] for row in rows)
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("file", "class", "probability", "next")
        table.columns[2].justify = "right"
        for row in rows:
            ranked = sorted(row["probabilities"].items(), key=operator.itemgetter(1), reverse=True)
            second = f"{ranked[1][0]} {ranked[1][1]:.1%}" if len(ranked) > 1 else ""
            cells = (row["file"], row["class"], f"{row['probability']:.1%}", second)
            table.add_row(*(Text(printable(cell)) for cell in cells))  # names are text, not rich's markup
        Console().print(table)
