"""Images that can't be used: counted, named, and borne up to a number that the user sets."""

import threading

from trainer.errors import DataError


class BadExamples:
    """What is wrong with a data set, as far as it is known.

    Args:
        allowed: How many bad images and other files a run may meet: `--max_bad_records`.

    Attributes:
        elsewhere: How many others the job's other workers have met.
    """

    def __init__(self, allowed=0):
        self._allowed, self._found, self._lock = allowed, {}, threading.Lock()
        self._examples, self._told, self.elsewhere = set(), 0, 0

    @property
    def count(self):
        """How many are known, wherever."""
        return self.here + self.elsewhere

    @property
    def here(self):
        """How many this process knows of."""
        return len(self._found)

    def note(self, split, example, problem):
        """Remembers a bad example; from any thread, as often as it is met.

        Args:
            split: The `EncodedSplit`.
            example: Its id.
            problem: What is wrong with it, in a few words; None to find out.
        """
        if (split, example) not in self._examples:
            self.note_file(split.name_of(example), problem or split.problem_of(example) or "it can't be decoded")
            with self._lock:
                self._examples.add((split, example))

    def note_file(self, name, problem):
        """Remembers something that is no example, such as a file that is no image."""
        with self._lock:
            self._found.setdefault(name, problem)

    def names(self):
        """A line for each: where, and what is wrong with it."""
        with self._lock:
            return [f"{name}: {problem}" for name, problem in sorted(self._found.items())]

    def news(self, most=10):
        """Lines, as of `names`, for what was found since the last call; of all calls together at most so many."""
        with self._lock:
            new, self._told = list(self._found.items())[self._told:most], len(self._found)
            return [f"{name}: {problem}" for name, problem in new]

    def check(self, shown=10):
        """Ends the run if there are more than it may meet.

        Args:
            shown: How many to name; None for all.

        Raises:
            DataError: naming them.
        """
        if self.count > self._allowed:
            lines = self.names()
            more = [f"and {len(lines) - shown:,} more"] if shown and len(lines) > shown else []
            what = "1 image or file" if self.count == 1 else f"{self.count:,} images or files"
            raise DataError("\n  ".join([f"{what} can't be used; --max_bad_records is {self._allowed:,}:",
                                         *lines[:shown], *more]),
                            f"repair or remove them, or leave them out with --max_bad_records={self.count}; "
                            "python -m trainer doctor --data lists all there are")
