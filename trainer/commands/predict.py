"""`predict`: class and probability of images."""

import csv
import dataclasses
import json
import sys

from trainer.commands._trained_run import TrainedOptions, TrainedRun
from trainer.errors import DataError
from trainer.options import option

POSITIONAL = "files"
_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer predict --model_dir=D FILE…: what the model sees in image files."""

    files: tuple[str, ...] = option((), "images")
    json: bool = option(False, "print a JSON object per image and line")
    csv: bool = option(False, "print comma-separated values")

    def problems(self):
        """See `Checked.problems`."""
        return (super().problems() + ([] if self.files else ["name at least one image file"])
                + (["--json and --csv exclude each other"] if self.json and self.csv else []))


def run(options):
    """Prints a row per image.

    Args:
        options: The `Options`.
    """
    trained = TrainedRun(options, strategy="one_device" if options.num_gpus < 0 else "auto")
    from trainer.export.serving import Serving

    serving = Serving(trained.model("float32"), trained.classes)
    classify = serving.signatures()["serving_default"]
    rows, names = [], iter(options.files)
    for images in _images(options.files, trained.image_shape):
        answer = classify(images=images)
        for probabilities, best in zip(answer["probabilities"].numpy(), answer["class"].numpy(), strict=True):
            rows.append({"file": next(names), "class": trained.classes[best], "probability": float(probabilities[best]),
                         "probabilities": dict(zip(trained.classes, map(float, probabilities), strict=True))})
    _print(rows, options)


def _images(names, image_shape):
    """Image files as the model takes them: chunks of uint8 [n, height, width, channels]."""
    import numpy as np

    from trainer.data.bad_examples import BadExamples
    from trainer.data.images import pillow_reader
    from trainer.data.images.encoded_split import HeaderTable
    from trainer.data.sources.folder import FolderSplit
    from trainer.export.serving import resize

    bad, looks = BadExamples(len(names)), HeaderTable.join([pillow_reader.look(name) for name in names])
    split = FolderSplit("", names, np.zeros(len(names)), looks, image_shape[0], (), bad)
    problems = [problem for problem in bad.names()] or [
        f"{name}: {problem}" for number, name in enumerate(names) if (problem := split.problem_of(number))]
    if problems:
        raise DataError("\n  ".join(problems), "name JPEG, PNG, WebP, BMP or GIF files that can be read")
    if image_shape == (image_shape[0], image_shape[0], 3):  # as training and evaluation see files
        yield from (images for images, _ in split.chunks(_ROWS))
        return
    for name in names:
        with open(name, "rb") as file:
            image = pillow_reader.decode(file.read())
        image = image if image_shape[2] == 3 else image.mean(-1, keepdims=True).round().astype(np.uint8)
        yield resize(image, *image_shape[:2]).numpy()[None]


def _print(rows, options):
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

        table = Table("file", "class", "probability", "next")
        table.columns[2].justify = "right"
        for row in rows:
            ranked = sorted(row["probabilities"].items(), key=lambda item: -item[1])
            second = f"{ranked[1][0]} {ranked[1][1]:.1%}" if len(ranked) > 1 else ""
            table.add_row(row["file"], row["class"], f"{row['probability']:.1%}", second)
        Console().print(table)
