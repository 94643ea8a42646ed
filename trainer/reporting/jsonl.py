"""Files of one JSON object per line; when a run resumes, they are cut back to the sizes in its checkpoint."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class LinesFile:
    """Appends lines to a file.

    Args:
        path: The file.
        size: How many bytes of the file are valid; the rest is cut off.

    Attributes:
        missing: How many of the valid bytes the file did not have.
    """

    def __init__(self, path: Path | str, size: int) -> None:
        self._file = open(path, "ab")  # noqa: SIM115  closed by `close`
        file_size = os.path.getsize(path)
        self.missing = max(0, size - file_size)
        self._file.truncate(size if size <= file_size else _end_of_last_line(path))
        self._file.seek(0, os.SEEK_END)

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends a line.

        Args:
            line: What JSON can hold; numbers in it that aren't finite become null.
        """
        values = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                  for name, value in line.items()}
        self._file.write(json.dumps(values).encode() + b"\n")

    def flush(self) -> int:
        """Hands all lines to the operating system; returns the size of the file in bytes."""
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _end_of_last_line(path: Path | str) -> int:
    with open(path, "rb") as file:
        return file.read().rfind(b"\n") + 1


def read(path: Path | str) -> list[dict[str, Any]]:
    """The objects in such a file, in their order; what isn't a whole line with an object is left out."""
    with open(path, "rb") as file:
        return [line for text in file if text.endswith(b"\n") and (line := _parse(text)) is not None]


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None
