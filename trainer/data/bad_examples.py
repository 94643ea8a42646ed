"""Images that can't be used: counted, named, and tolerated up to a number that the user sets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from trainer.errors import DataError, StorageError

if TYPE_CHECKING:
    from trainer.data.images.encoded_split import EncodedSplit


class BadExamples:
    """The images and other files of a data set that are known to be unusable.

    Args:
        allowed: How many bad images and other files a run may meet: `--max_bad_records`.

    Attributes:
        elsewhere: How many others the job's other workers have met.
    """

    def __init__(self, allowed: int = 0) -> None:
        self._allowed, self._lock = allowed, threading.Lock()
        self._problems: dict[str, str] = {}
        self._examples: set[tuple[EncodedSplit, int]] = set()
        self._reported, self.elsewhere = 0, 0
        self._fault: StorageError | None = None

    @property
    def count(self) -> int:
        """How many all workers know of."""
        return self.here + self.elsewhere

    @property
    def here(self) -> int:
        """How many this process knows of."""
        return len(self._problems)

    def note(self, split: EncodedSplit, example: int, problem: str | None) -> None:
        """Remembers a bad example; from any thread, as often as it is met.

        Args:
            split: The split of the example.
            example: The example's id.
            problem: What is wrong with the example, in a few words; None to find out.
        """
        if (split, example) not in self._examples:
            try:
                problem = problem or split.failure_of(example)
            except StorageError as error:  # raised in a pipeline, it would not reach the loop
                self._fault, problem = self._fault or error, error.cause
            self.note_file(split.name_of(example), problem)
            with self._lock:
                self._examples.add((split, example))

    def note_file(self, name: str, problem: str) -> None:
        """Remembers something that is not an example, such as a file that is not an image."""
        with self._lock:
            self._problems.setdefault(name, problem)

    def names(self) -> list[str]:
        """A line for each bad example or file: its path, and what is wrong with it."""
        with self._lock:
            return [f"{name}: {problem}" for name, problem in sorted(self._problems.items())]

    def news(self, most: int = 10) -> list[str]:
        """Lines like those of `names` for what is new since the last call; all calls together give at most `most`."""
        with self._lock:
            new = list(self._problems.items())[self._reported:most]
            self._reported = len(self._problems)
            return [f"{name}: {problem}" for name, problem in new]

    def check(self, shown: int | None = 10) -> None:
        """Ends the run if there are more bad examples and files than it may meet.

        Args:
            shown: How many to name; None for all.

        Raises:
            DataError: naming the bad examples and files.
            StorageError: if reading failed in a way that says nothing of the data.
        """
        if self._fault:
            raise self._fault
        if self.count > self._allowed:
            lines = self.names()[:shown]
            more = [f"and {self.count - len(lines):,} more"] if self.count > len(lines) else []
            what = "1 image or file" if self.count == 1 else f"{self.count:,} images or files"
            raise DataError("\n  ".join([f"{what} can't be used; --max_bad_records is {self._allowed:,}:",
                                         *lines, *more]),
                            f"repair or remove them, or leave them out with --max_bad_records={self.count} or more: "
                            "what was read so far is counted. python -m trainer doctor --data, with this --dataset and "
                            "--data_dir, lists all")
