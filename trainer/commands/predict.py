"""`predict`: class and probability of pictures."""

import csv
import dataclasses
import json
import sys

from trainer.commands.trained import TrainedOptions, TrainedRun
from trainer.config import option
from trainer.errors import DataError

POSITIONAL = "files"
_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer predict --model_dir=D FILE…: what the model sees in JPEG, PNG, GIF or BMP files."""

    files: tuple[str, ...] = option((), "pictures")
    json: bool = option(False, "print a JSON object per picture and line")
    csv: bool = option(False, "print comma-separated values")

    def problems(self):
        """See `Checked.problems`."""
        return (super().problems() + ([] if self.files else ["name at least one picture file"])
                + (["--json and --csv exclude each other"] if self.json and self.csv else []))


def run(options):
    """Prints a row per picture.

    Args:
        options: The `Options`.
    """
    trained = TrainedRun(options)
    import numpy as np

    from trainer.export import Serving

    serving = Serving(trained.model("float32"), trained.classes)
    classify = serving.signatures()["serving_default"]
    rows = []
    for begin in range(0, len(options.files), _ROWS):
        names = options.files[begin:begin + _ROWS]
        answer = classify(images=np.stack([_read(name, trained.image_shape) for name in names]))
        for name, probabilities, best in zip(names, answer["probabilities"].numpy(), answer["class"].numpy(),
                                             strict=True):
            rows.append({"file": name, "class": trained.classes[best], "probability": float(probabilities[best]),
                         "probabilities": dict(zip(trained.classes, map(float, probabilities), strict=True))})
    _print(rows, options)


def _read(name, image_shape):
    """A picture file as the model takes it: uint8 [height, width, channels]."""
    import tensorflow as tf

    from trainer.export import resize
    from trainer.runtime import reason

    height, width, channels = image_shape
    try:
        with open(name, "rb") as file:
            image = tf.io.decode_image(file.read(), channels=channels, expand_animations=False)
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}", "name picture files that can be read") from None
    except tf.errors.InvalidArgumentError as error:
        raise DataError(f"{name} is no picture that can be decoded: {reason(error)}",
                        "name JPEG, PNG, GIF or BMP files") from None
    return resize(image, height, width).numpy()


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
