"""Figures that a user's own functions make of what a model said: `--metrics`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trainer.process.user_code import function_of

if TYPE_CHECKING:
    from trainer.quality.predictions import Predictions


class OwnMetrics:
    """Calls the functions, and survives what they do.

    Args:
        names: Of the functions, as in `--metrics`.
        warn: Is told once of each function that fails.

    Raises:
        UsageError: if one of them can't be imported, or takes something else.
    """

    def __init__(self, names: Sequence[str], warn: Callable[[str], object]) -> None:
        self._functions = {name: function_of("metrics", name, ("predictions",)) for name in names}
        self._warn, self._failed = warn, set[str]()

    def of(self, predictions: Predictions) -> dict[str, float | None]:
        """Name of each function to its figure; None where it has no finite one.

        Args:
            predictions: What the model said. `probabilities` are None where they aren't kept.
        """
        return {name: self._call(name, predictions) for name in self._functions}

    def _call(self, name: str, predictions: Predictions) -> float | None:
        try:
            value = float(self._functions[name](predictions))
        except Exception as error:  # a figure of an evaluation is no reason to end a run
            if name not in self._failed:
                self._failed.add(name)
                self._warn(f"--metrics={name} has no figure of step {predictions.step:,} "
                           f"({type(error).__name__}: {error}); further failures of it aren't told")
            return None
        return value if math.isfinite(value) else None
