"""Files of a JSON object a line, cut back to where a checkpoint knows them when a run goes on."""

import json
import math
import os


class LinesFile:
    """Appends lines to a file.

    Args:
        path: The file.
        size: How many bytes of it are valid; the rest is cut off.

    Attributes:
        missing: How many of those bytes weren't there.
    """

    def __init__(self, path, size):
        self._file = open(path, "ab")  # noqa: SIM115  closed by `close`
        there = os.path.getsize(path)
        self.missing = max(0, size - there)
        self._file.truncate(size if size <= there else _end_of_last_line(path))
        self._file.seek(0, os.SEEK_END)

    def write(self, line):
        """Appends a line.

        Args:
            line: A dict of what JSON knows; numbers in it that aren't finite become null.
        """
        values = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                  for name, value in line.items()}
        self._file.write(json.dumps(values).encode() + b"\n")

    def flush(self):
        """Hands all to the operating system. Returns the size in bytes."""
        self._file.flush()
        return self._file.tell()

    def close(self):
        """Closes the file."""
        self._file.close()


def _end_of_last_line(path):
    with open(path, "rb") as file:
        return file.read().rfind(b"\n") + 1


def read(path):
    """The lines of such a file as dicts; what isn't a whole line of it is left out."""
    with open(path, "rb") as file:
        return [line for text in file if text.endswith(b"\n") and (line := _parse(text)) is not None]


def _parse(text):
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None
