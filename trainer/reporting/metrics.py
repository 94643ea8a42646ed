"""metrics.jsonl: a line per event, cut back to where a checkpoint knows it when a run goes on."""

import json
import math
import os
import time


class MetricsFile:
    """Appends lines to a run's metrics.jsonl.

    Args:
        path: The file.
        size: How many bytes of it are valid; the rest is cut off.
    """

    def __init__(self, path, size):
        self._file = open(path, "ab")  # noqa: SIM115  closed by `close`
        self._file.truncate(min(size, os.path.getsize(path)))
        self._file.seek(0, os.SEEK_END)

    def write(self, split, record):
        """Appends a line.

        Args:
            split: train or eval.
            record: A dict of numbers or None, with step and epoch among them.
        """
        line = {"time": round(time.time(), 3), "step": record["step"], "epoch": record["epoch"], "split": split}
        values = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                  for name, value in {**line, **record}.items()}  # JSON knows no NaN
        self._file.write(json.dumps(values).encode() + b"\n")
        self._file.flush()

    def settle(self):
        """Hands all to the operating system. Returns the size in bytes."""
        self._file.flush()
        return self._file.tell()

    def close(self):
        """Closes the file."""
        self._file.close()


def read(path):
    """The lines of a metrics.jsonl as dicts; a last line that was cut off is left out."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]
