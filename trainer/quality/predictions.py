"""What a model said of each example of a split, and the file that keeps it."""

from __future__ import annotations

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.errors import DataError
from trainer.storage.durable import write_durably

COLUMNS = 3  # of answers, before the probabilities
_MOST_FLOAT32 = 2**24  # probabilities: 64 MiB
_MOST = 2**28  # probabilities: 512 MiB in float16
_DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model said of each example that can be read, once each, in the order of the ids.

    Args:
        split: The name of the split.
        step: The step of the weights.
        classes: Names of the classes, in the order of the labels.
        ids: int64 [n], ascending.
        labels: int32 [n].
        predicted: int32 [n], the class that was said.
        confidence: float32 [n], the probability of that class.
        rank: int32 [n], how many classes were said to be more likely than the label.
        probabilities: float32 or float16 [n, classes]; None if they would be too many.
    """

    split: str
    step: int
    classes: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray
    probabilities: np.ndarray | None

    @classmethod
    def from_answers(cls, answers: np.ndarray, ids: np.ndarray, labels: np.ndarray, *, split: str, step: int,
                     classes: Sequence[str]) -> Predictions:
        """Puts the rows of an evaluation in order, and leaves padding and unreadable examples out.

        Args:
            answers: float32 [m, 3 or 3 + classes]: the predicted class, or -1 for a row that doesn't count; the
                logarithm of its probability; the label's rank; and, if they are kept, the logarithms of all
                probabilities.
            ids: int64 [m], the example of each row.
            labels: int32 [size], the labels of the whole split.
            split, step, classes: As in `Predictions`.
        """
        rows = np.flatnonzero(answers[:, 0] >= 0)
        rows = rows[np.argsort(ids[rows], kind="stable")]
        probabilities = None
        if answers.shape[1] > COLUMNS:
            probabilities = np.exp(answers[rows, COLUMNS:])
            probabilities = probabilities.astype(np.float32 if probabilities.size <= _MOST_FLOAT32 else np.float16)
        return cls(split, step, tuple(classes), ids[rows].astype(np.int64), labels[ids[rows]].astype(np.int32),
                   answers[rows, 0].astype(np.int32), np.exp(answers[rows, 1]), answers[rows, 2].astype(np.int32),
                   probabilities)

    @property
    def correct(self) -> np.ndarray:
        """Which examples were answered correctly: bool [n]."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        """The fraction of the examples that were answered correctly."""
        return int(np.sum(self.correct)) / len(self.ids)

    def write(self, path: Path | str) -> None:
        """Writes the file so that after a crash it holds either the old content or all of the new."""
        arrays = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        written = io.BytesIO()
        np.savez(written, **{**arrays, "classes": np.array(self.classes, np.str_)})
        write_durably(path, written.getvalue())

    @classmethod
    def read(cls, path: Path | str) -> Predictions:
        """Reads what `write` wrote.

        Raises:
            DataError: if the file isn't there, or isn't what was written.
        """
        try:
            # NumPy leaves a file open that it can't read.
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            whole = cls(**{"probabilities": None, **arrays, "split": str(arrays["split"]), "step": int(arrays["step"]),
                           "classes": tuple(arrays["classes"].tolist())})
            parts = (whole.labels, whole.predicted, whole.confidence, whole.rank)
            if {len(whole.ids)} != {len(part) for part in parts}:
                raise ValueError("its arrays have different lengths")
            return whole
        except FileNotFoundError:
            raise DataError(f"there is no {path}", "run the training command again: it writes the file at the end"
                            ) from None
        except _DAMAGED as error:
            raise DataError(f"{path} is damaged ({type(error).__name__}: {error})",
                            "run the training command again: it writes the file anew") from None


def keeps_probabilities(examples: int, classes: int) -> bool:
    """Whether the probabilities of a split are few enough to be kept: up to 2²⁸, half a GiB of float16."""
    return examples * classes <= _MOST
