"""`predict`: class and probability of images."""

import dataclasses
import sys

from trainer.commands.common.trained_run import TrainedOptions, TrainedRun
from trainer.errors import DataError
from trainer.options import option
from trainer.process.exit import say

POSITIONAL = "files"
_NAMED = 10  # files of the last message


@dataclasses.dataclass(frozen=True)
class Options(TrainedOptions):
    """python -m trainer predict --model_dir=D FILE|FOLDER|-…: what the model sees in image files."""

    files: tuple[str, ...] = option((), "image files; folders, in which all that ends as image files do is answered; - "
                                    "for names from standard input, one a line; after -- also names that begin with -",
                                    repeats=True)
    top_k: int | None = option(None, "number of classes that are shown of each image, the likeliest first; default: "
                               "2 in the table, 1 with --csv, all in their order with --json", least=1)
    json: bool = option(False, "print a JSON object per image and line; of a file that can't be used: file and error")
    csv: bool = option(False, "print comma-separated values; of a file that can't be used: file and error")

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        problems = super().problems()
        if not self.files:
            problems.append("name at least one image file or folder, or - for names from standard input")
        if self.files.count("-") > 1:
            problems.append("- is given twice, and there is one standard input")
        if self.json and self.csv:
            problems.append("--json and --csv exclude each other")
        return problems


def run(options: Options) -> None:
    """Prints a line per image, as soon as it is known.

    Raises:
        DataError: after all lines, if there are files that can't be used, with their number.
        UsageError: if files can't be the model's images.
    """
    trained = TrainedRun(options, strategy="one_device")
    from trainer.commands.prediction import forms
    from trainer.commands.prediction.answers import Answers
    from trainer.commands.prediction.image_names import batches

    form = (forms.Json if options.json else forms.Csv if options.csv else forms.Table)(trained.classes, options.top_k)
    answers = Answers(trained)
    if form.heading is not None:
        say(form.heading)
    count, bad, named = 0, 0, []
    for answer in answers.of(batches(options.files, sys.stdin and sys.stdin.buffer)):
        say(form.line(answer))
        count += 1
        if answer.error is not None:
            bad += 1
            named += [f"{answer.name}: {answer.error}"] if len(named) < _NAMED else []
    if bad:
        more = [f"and {bad - len(named):,} more"] if bad > len(named) else []
        raise DataError("\n  ".join([f"{bad:,} of {count:,} files can't be used:", *named, *more]),
                        "use image files that can be read (JPEG, PNG, WebP, TIFF, …); the others are answered above")
