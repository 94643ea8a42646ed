"""Forms in which `predict` prints its answers: a table, JSON, comma-separated values. A line per file in each."""

from __future__ import annotations

import abc
import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from trainer.process.exit import in_a_line

if TYPE_CHECKING:
    from trainer.commands.prediction.answers import Answer

_WIDEST = 60  # letters of a column that is padded


class Form(abc.ABC):
    """A way to print answers.

    Args:
        classes: The class names, in the order of the probabilities.
        top_k: How many classes are shown of each image; None for the form's own number.

    Attributes:
        heading: The line above all answers; None if there is none.
    """

    top_k: int | None = None
    heading: str | None = None

    def __init__(self, classes: Sequence[str], top_k: int | None) -> None:
        self._classes = classes
        self._count = min(top_k or self.top_k or len(classes), len(classes))

    @abc.abstractmethod
    def line(self, answer: Answer) -> str:
        """The line of an answer, or of a file that can't be used."""

    def _ranked(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        """The likeliest classes, with their probabilities; of equal ones the first."""
        best: list[int] = np.argsort(-probabilities, kind="stable")[:self._count].tolist()
        return [(self._classes[label], float(probabilities[label])) for label in best]


class Table(Form):
    """Columns for people: class, probability, the next classes, file. The file is last, for its width isn't known."""

    top_k = 2

    def __init__(self, classes: Sequence[str], top_k: int | None) -> None:
        super().__init__(classes, top_k)
        longest = max(cell_len(in_a_line(name)) for name in classes)
        self._widths = (max(longest, len("class")), len("probability"),
                        (self._count - 1) * (longest + len(" 99.9%, ")) - len(", "))
        self.heading = self._join("class", "probability", "next", "file")

    def line(self, answer: Answer) -> str:
        """The row of an answer, as `Form.line` describes it."""
        file = in_a_line(answer.name)
        if answer.probabilities is None:
            return self._join("-", "-", "-", f"{file}: {in_a_line(answer.error or '')}")
        (best, probability), *others = self._ranked(answer.probabilities)
        following = ", ".join(f"{in_a_line(name)} {other:.1%}" for name, other in others)
        return self._join(in_a_line(best), f"{probability:.1%}", following, file)

    def _join(self, best: str, probability: str, following: str, file: str) -> str:
        class_width, width, next_width = self._widths
        cells = [_padded(best, class_width), probability.rjust(width)]
        cells += [_padded(following, next_width)] if self._count > 1 else []
        return "  ".join([*cells, file])


class Json(Form):
    """A JSON object per line: file, class, probability and probabilities, or file and error.

    All classes in their order; with `--top_k` the likeliest first. Only ASCII letters, so that any name can be read
    back, also one that isn't Unicode.
    """

    def __init__(self, classes: Sequence[str], top_k: int | None) -> None:
        super().__init__(classes, top_k)
        self._sorts = top_k is not None

    def line(self, answer: Answer) -> str:
        """The object of an answer, as `Form.line` describes it."""
        if answer.probabilities is None:
            return json.dumps({"file": answer.name, "error": answer.error})
        ranked = self._ranked(answer.probabilities)
        shown = ranked if self._sorts else zip(self._classes, map(float, answer.probabilities), strict=True)
        return json.dumps({"file": answer.name, "class": ranked[0][0], "probability": ranked[0][1],
                           "probabilities": dict(shown)})


class Csv(Form):
    """Comma-separated values: file, class and probability for each of the likeliest classes, error."""

    top_k = 1

    def __init__(self, classes: Sequence[str], top_k: int | None) -> None:
        super().__init__(classes, top_k)
        others = [f"{name}_{rank}" for rank in range(2, self._count + 1) for name in ("class", "probability")]
        self.heading = _csv_line(["file", "class", "probability", *others, "error"])

    def line(self, answer: Answer) -> str:
        """The row of an answer, as `Form.line` describes it."""
        if answer.probabilities is None:
            return _csv_line([answer.name, *[""] * (2 * self._count), answer.error or ""])
        ranked = self._ranked(answer.probabilities)
        return _csv_line([answer.name, *(cell for name, probability in ranked for cell in (name, f"{probability:.6f}")),
                          ""])


def _padded(text: str, width: int) -> str:
    return text + " " * (min(width, _WIDEST) - cell_len(text))


def _csv_line(cells: Iterable[str]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow(map(in_a_line, cells))
    return written.getvalue()
