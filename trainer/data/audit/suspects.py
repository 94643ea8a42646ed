"""Labels of a data set that are likely wrong, by what a run said of images that it was not trained on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import DataError
from trainer.quality.wrong_labels import WrongLabels, likely_wrong

if TYPE_CHECKING:
    from trainer.data.dataset import Dataset
    from trainer.quality.predictions import Predictions

_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Suspects:
    """Likely wrong labels of a split, the most suspicious first.

    Args:
        predictions: What the run said of the split.
        found: Rows of the predictions.
    """

    predictions: Predictions
    found: WrongLabels

    def as_json(self, data: Dataset) -> list[dict[str, Any]]:
        """An object for each label: the example, the class that it is likelier of, and both probabilities."""
        said, split = self.predictions, data.splits[self.predictions.split]
        assert said.probabilities is not None  # `suspects_of`
        rows = []
        for row, suggested in zip(self.found.rows.tolist(), self.found.suggested.tolist(), strict=True):
            example, label, chances = int(said.ids[row]), int(said.labels[row]), said.probabilities[row]
            rows.append({"split": said.split, "id": example, "name": split.name_of(example), "class":
                         data.classes[label], "suggested": data.classes[suggested],
                         "probability": float(chances[label]), "suggested_probability": float(chances[suggested])})
        return rows

    def sentences(self, data: Dataset) -> list[str]:
        """What to tell of them; [] if there are none."""
        rows, said = self.as_json(data), self.predictions
        if not rows:
            return []
        shown = ", ".join(f"{row['name']} ({row['class']}; rather {row['suggested']})" for row in rows[:_NAMED])
        more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
        return [f"{len(rows):,} of {len(said.ids):,} labels of the {said.split} split are likely wrong, by what the "
                f"run says: {shown}{more}; look at the first, for the run itself is right in {said.accuracy:.1%}"]


def suspects_of(predictions: Predictions, data: Dataset) -> Suspects | None:
    """The likely wrong labels among the examples that a run was measured on.

    Args:
        predictions: What the run said.
        data: The run's data set.

    Returns:
        The labels; None if the run kept no probabilities, for there are too many.

    Raises:
        DataError: if the predictions are of other examples or labels than those of the data.
    """
    split = data.splits.get(predictions.split)
    ids = predictions.ids
    if (split is None or predictions.classes != data.classes or ((ids < 0) | (ids >= split.size)).any()
            or not np.array_equal(split.labels[ids], predictions.labels)):
        raise DataError(f"the run's predictions are of another {predictions.split} split than that of the data",
                        "put the old data back, or leave --model_dir out")
    if predictions.probabilities is None:
        return None
    return Suspects(predictions, likely_wrong(predictions.probabilities, predictions.labels))
