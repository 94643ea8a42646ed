"""`predict`: class and probability of images."""

import csv
import dataclasses
import json
import operator
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trainer.commands._trained_run import TrainedOptions, TrainedRun
from trainer.errors import DataError
from trainer.options import option
from trainer.process.exit import printable

if TYPE_CHECKING:
    import numpy as np

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
        DataError: if a file is not an image that can be read.
    """
    trained = TrainedRun(options, strategy="one_device" if options.num_gpus < 0 else "auto")
    from trainer.export.serving import Serving

    serving = Serving(trained.model("float32"), trained.classes)
    classify = serving.signatures()["serving_default"]
    rows, names = [], iter(options.files)
    for images in _images(options.files, trained.image_shape):
        outputs = classify(images=images)
        for probabilities, best in zip(outputs["probabilities"].numpy(), outputs["class"].numpy(), strict=True):
            rows.append({"file": next(names), "class": trained.classes[best], "probability": float(probabilities[best]),
                         "probabilities": dict(zip(trained.classes, map(float, probabilities), strict=True))})
    _print(rows, options)


def _images(names: Sequence[str], image_shape: tuple[int, int, int]) -> "Iterator[np.ndarray]":
    """Image files as the model takes them: chunks of uint8 [n, height, width, channels]."""
    import numpy as np

    from trainer.data.bad_examples import BadExamples
    from trainer.data.images import pillow_reader
    from trainer.data.images.encoded_split import HeaderTable
    from trainer.data.sources.folder import FolderSplit
    from trainer.export.serving import resize

    bad, headers = BadExamples(len(names)), HeaderTable.join([pillow_reader.read_header(name) for name in names])
    split = FolderSplit("", names, np.zeros(len(names)), headers, image_shape[0], (), bad)
    problems = bad.names() or [
        f"{name}: {problem}" for example, name in enumerate(names) if (problem := split.problem_of(example))]
    if problems:
        raise DataError("\n  ".join(problems), "use JPEG, PNG, WebP, BMP or GIF files that can be read")
    if image_shape == (image_shape[0], image_shape[0], 3):  # the same pixels as in training and evaluation
        yield from (images for images, _ in split.chunks(_CHUNK_SIZE))
        return
    for name in names:
        with open(name, "rb") as file:
            image: Any = pillow_reader.decode(file.read())
        image = image if image_shape[2] == 3 else image.mean(-1, keepdims=True).round().astype(np.uint8)
        yield resize(image, *image_shape[:2]).numpy()[None]


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
