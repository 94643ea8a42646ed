"""The files that `predict` is asked about: names, folders that are walked, and names from standard input."""

from __future__ import annotations

import itertools
import os
import queue
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trainer.data.images import folder_scan

STANDARD_INPUT = "-"
# A pipeline takes about half a second to open, so batches grow; the first is small, so that answers come soon.
_FIRST_BATCH, _LARGEST_BATCH, _GROWTH = 64, 4096, 4


class Named(NamedTuple):
    """A file that was asked about.

    Args:
        name: Its path, as it was given or found.
        problem: Why it can't be opened, in a few words; None if it can be tried.
    """

    name: str
    problem: str | None = None


def batches(words: Sequence[str], stdin: BinaryIO | None) -> Iterator[list[Named]]:
    """Finds the files that a command line means, in its order.

    Args:
        words: Names of files and folders; "-" for names from standard input, one a line.
        stdin: Standard input; None if there is none.

    Yields:
        Lists of one file or more, of a size that grows. From standard input a list has what has come so far, so that a
        program that writes names slowly gets its answers.
    """
    found = _find(words, stdin)
    sizes = itertools.accumulate(itertools.repeat(_GROWTH), _next_size, initial=_FIRST_BATCH)
    yield from _as_they_come(found, sizes) if STANDARD_INPUT in words else _in_lists(found, sizes)


def _next_size(size: int, growth: int) -> int:
    return min(size * growth, _LARGEST_BATCH)


def _in_lists(found: Iterator[Named], sizes: Iterable[int]) -> Iterator[list[Named]]:
    for size in sizes:
        batch = list(itertools.islice(found, size))
        if not batch:
            return
        yield batch


def _as_they_come(found: Iterable[Named], sizes: Iterable[int]) -> Iterator[list[Named]]:
    """Lists of what a thread has found by now, at most as many as a size says; waits for at least one."""
    waiting: queue.Queue[Named | Exception | None] = queue.Queue(_LARGEST_BATCH)

    def read() -> None:
        try:
            for item in found:
                waiting.put(item)
            waiting.put(None)
        except Exception as error:  # raised again where it is noticed
            waiting.put(error)

    threading.Thread(target=read, daemon=True, name="names").start()
    for size in sizes:
        batch: list[Named] = []
        while len(batch) < size and not (batch and waiting.empty()):
            item = waiting.get()
            if not isinstance(item, Named):
                yield from [batch] if batch else []
                if item:
                    raise item
                return
            batch.append(item)
        yield batch


def _find(words: Iterable[str], stdin: BinaryIO | None) -> Iterator[Named]:
    for word in words:
        if word != STANDARD_INPUT:
            yield from _named(word)
            continue
        is_empty = True
        for name in filter(None, map(_name_in, stdin or ())):
            is_empty = False
            yield from _named(name)
        if is_empty:
            yield Named(STANDARD_INPUT, "standard input names no file")


def _name_in(line: bytes) -> str:
    return os.fsdecode(line.rstrip(b"\r\n"))


def _named(name: str) -> Iterator[Named]:
    """A file, or the files in a folder of that name."""
    try:
        mode = os.stat(name).st_mode
    except OSError as error:
        yield Named(name, f"it can't be read: {error.strerror}")
    except ValueError as error:  # a NUL
        yield Named(name, f"it can't be read: {error}")
    else:
        if stat.S_ISDIR(mode):
            yield from _in_folder(name)
        else:
            yield Named(name, None if stat.S_ISREG(mode) else "it is not a regular file")


def _in_folder(folder: str) -> Iterator[Named]:
    """What a data set of that folder would take for images, at any depth; what else lies there isn't opened."""
    try:
        problems = folder_scan.names(Path(folder))
    except OSError as error:
        yield Named(folder, f"it can't be read: {error.strerror}")
        return
    for name, problem in problems.items():
        yield Named(os.path.join(folder, name), problem)
    if not problems:
        yield Named(folder, "no file in this folder ends as image files do")
