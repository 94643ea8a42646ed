"""What lies in a folder of images: every file's name, size and header.

What was read is remembered in the run's folder, so that the next start reads only what has changed since.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from trainer.data.images import pillow_reader
from trainer.errors import DataError
from trainer.process.exit import tell

_MEMORY, _MEMORY_VERSION = "data_scan.json", 2
_MANY = 20_000  # headers whose reading takes long enough for a message
_THREADS = 8
# What systems and tools leave in folders by themselves; and files that begin with a dot and don't end as images do.
_JUNK = {".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r", "__MACOSX", ".ipynb_checkpoints", ".git",
         ".hg", ".svn", ".dvc", "@eaDir", ".Trashes", ".Spotlight-V100", ".fseventsd", "$RECYCLE.BIN",
         "System Volume Information", "lost+found"}


class Found(NamedTuple):
    """An image file.

    Args:
        size: Bytes of the file.
        header: What the file's header says.
    """

    size: int
    header: pillow_reader.ImageHeader


class Scan(NamedTuple):
    """What a folder holds.

    Args:
        images: Names, relative to the folder, of all files that end as image files do.
        others: Name of anything else to what is wrong with it.
        folders: Names of all folders.
    """

    images: dict[str, Found]
    others: dict[str, str]
    folders: set[str]


def scan(root: Path, memory: Path | str | None = None) -> Scan:
    """Reads the names, sizes and headers of all files below a folder.

    Args:
        root: The folder.
        memory: The folder in which to remember what was read; None to remember nothing. It isn't made.

    Raises:
        DataError: if there is no such folder.
    """
    if not os.path.isdir(root):
        raise DataError(f"--data_dir must be a folder; {root} is {'not one' if os.path.exists(root) else 'not there'}",
                        "use the folder that holds train/CLASS/ or CLASS/ folders of images")
    files: dict[str, os.stat_result] = {}
    others: dict[str, str] = {}
    folders: set[str] = set()
    _walk(root, "", files, others, folders)
    path = Path(memory or root, _MEMORY)
    known = _recall(path, root) if memory else {}
    headers = {name: pillow_reader.ImageHeader(*known[name][2:]) for name, stat in files.items()
               if known.get(name, [])[:2] == [stat.st_size, stat.st_mtime_ns]}
    new = sorted(files.keys() - headers.keys())
    if len(new) > _MANY:
        tell(f"reading the headers of {len(new):,} images in {root}")

    def read(name: str) -> pillow_reader.ImageHeader:
        return pillow_reader.read_header(os.path.join(root, name))

    with ThreadPoolExecutor(_THREADS) as threads:  # opening files is mostly waiting where they are far away
        headers.update(zip(new, threads.map(read, new, chunksize=64), strict=True))
    if memory and new and Path(memory).is_dir():
        _remember(path, root, {name: [stat.st_size, stat.st_mtime_ns, *headers[name]] for name, stat in files.items()})
    return Scan({name: Found(files[name].st_size, headers[name]) for name in sorted(files)}, others, folders)


def _walk(root: Path, folder: str, files: dict[str, os.stat_result], others: dict[str, str], folders: set[str],
          above: tuple[str, ...] = ()) -> None:
    """Collects what is below root/folder; `above` are the true paths of the folders that hold it."""
    true_path = os.path.realpath(os.path.join(root, folder))
    if true_path in above:
        others[folder] = "it is a link in a circle"
        return
    if folder:
        folders.add(folder)
    with os.scandir(os.path.join(root, folder)) as entries:
        for entry in sorted(entries, key=operator.attrgetter("name")):
            name = os.path.join(folder, entry.name)
            if entry.name in _JUNK or entry.name.startswith("._"):
                continue
            try:
                if entry.is_symlink() and not os.path.exists(entry.path):
                    others[name] = "it is a link to nothing"
                elif entry.is_dir():
                    _walk(root, name, files, others, folders, (*above, true_path))
                elif not entry.is_file():
                    others[name] = "it is not a regular file"
                elif entry.name.lower().endswith(pillow_reader.endings()):
                    files[name] = entry.stat()
                elif not entry.name.startswith("."):
                    others[name] = "it doesn't end as image files do"
            except OSError as error:
                others[name] = f"it can't be read: {error.strerror}"


def _recall(path: Path, root: Path) -> dict[str, list[Any]]:
    """What the last scan wrote: name to [bytes, time of change in ns, *header]; {} if the file can't be used."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["root"] == os.path.abspath(root) and value["version"] == _MEMORY_VERSION:
            return {name: entry for name, entry in value["files"].items()
                    if [type(part) for part in entry[:7]] == [int] * 7 and type(entry[7]) in (str, type(None))}
    return {}


def _remember(path: Path, root: Path, files: Mapping[str, list[Any]]) -> None:
    """Writes what `_recall` reads."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a help for the next start, nothing that this one needs
        staged.write_text(json.dumps({"version": _MEMORY_VERSION, "root": os.path.abspath(root),
                                      "files": files}), encoding="utf-8")
        os.replace(staged, path)
