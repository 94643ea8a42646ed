"""What lies in a folder of images: every file's name, size and header.

What was read is remembered in the run's folder, so that the next start reads only what has changed since. What runs and
`prepare` write is no data, wherever it lies.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
from collections.abc import Iterable, Mapping
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
         "System Volume Information", "lost+found", "__pycache__", "node_modules"}
# A folder is a run's, or holds prepared records, or a Python environment, if it has all names of one of these sets.
_NOT_DATA = ({".lock"}, {"config.json", "checkpoints"}, {"dataset.json", "train.index.npy"}, {"pyvenv.cfg"})

_NOT_AN_IMAGES_NAME = "it doesn't end as image files do"


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
                        "use the folder that holds train/CLASS/ or CLASS/ folders of images; --dataset=csv reads a CSV "
                        "file that lists them")
    found = _Walk(root)
    found.walk("")
    found.leave_out([memory, os.getcwd()])
    images = read_headers(root, found.files, memory)
    return Scan(images, found.others, found.folders)


def read_headers(root: Path, files: Mapping[str, os.stat_result], memory: Path | str | None) -> dict[str, Found]:
    """Reads the headers of image files, but for those that are remembered.

    Args:
        root: The folder of the images.
        files: The image files: name, relative to the folder, to what the system says of it.
        memory: As in `scan`.

    Returns:
        Name to `Found`, in the order of the names.
    """
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
    return {name: Found(files[name].st_size, headers[name]) for name in sorted(files)}


class _Walk:
    """Collects what is below a folder.

    Args:
        root: The folder.

    Attributes:
        files: Name, relative to the folder, of each image file to what the system says of it.
        others: Name of anything else to what is wrong with it.
        folders: Names of all folders.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._not_data: list[str] = []  # folders of runs and the like, which are not gone into
        self.files: dict[str, os.stat_result] = {}
        self.others: dict[str, str] = {}
        self.folders: set[str] = set()

    def walk(self, folder: str, above: tuple[str, ...] = ()) -> None:
        """Collects what is below root/folder; `above` are the true paths of the folders that hold it."""
        true_path = os.path.realpath(os.path.join(self._root, folder))
        if true_path in above:
            self.others[folder] = "it is a link in a circle"
            return
        with os.scandir(os.path.join(self._root, folder)) as scanned:
            entries = sorted(scanned, key=operator.attrgetter("name"))
        names = {entry.name for entry in entries}
        if folder and any(marks <= names for marks in _NOT_DATA):
            self._not_data.append(folder)
            return
        if folder:
            self.folders.add(folder)
        for entry in entries:
            if entry.name in _JUNK or entry.name.startswith("._"):
                continue
            name = os.path.join(folder, entry.name)
            try:
                self._add(name, entry, (*above, true_path))
            except OSError as error:
                self.others[name] = f"it can't be read: {error.strerror}"

    def _add(self, name: str, entry: os.DirEntry[str], above: tuple[str, ...]) -> None:
        """Adds what is in a folder; `above` are the true paths of that folder and those that hold it."""
        if entry.is_symlink() and not os.path.exists(entry.path):
            self.others[name] = "it is a link to nothing"
        elif entry.is_dir():
            self.walk(name, above)
        elif not entry.is_file():
            self.others[name] = "it is not a regular file"
        elif entry.name.lower().endswith(pillow_reader.endings()):
            self.files[name] = entry.stat()
        elif not entry.name.startswith("."):
            self.others[name] = _NOT_AN_IMAGES_NAME

    def leave_out(self, paths: Iterable[Path | str | None]) -> None:
        """Leaves out what holds no images, but a run, or is where this one was started.

        Args:
            paths: Folders that aren't data, wherever they lie; None for none.
        """
        true_root = os.path.realpath(self._root)
        relative = [os.path.relpath(os.path.realpath(path), true_root) for path in paths if path]
        inside = [path for path in relative if path.split(os.sep)[0] not in (os.curdir, os.pardir)]
        for folder in [*self._not_data, *inside]:
            while folder and not any(name.startswith(f"{folder}/") for name in self.files):
                self.folders = {name for name in self.folders if not _is_below(name, folder)}
                self.others = {name: problem for name, problem in self.others.items() if not _is_below(name, folder)}
                folder = os.path.dirname(folder)


def _is_below(name: str, folder: str) -> bool:
    """Whether a name is that of a folder, or of something in it."""
    return name == folder or name.startswith(f"{folder}/")


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


def names(root: Path) -> dict[str, str | None]:
    """The files below a folder that end as image files do, and what can't be entered or followed; opens none.

    Args:
        root: The folder.

    Returns:
        Name, relative to the folder, to what is wrong with it, or None: folder by folder, in the order of their names.

    Raises:
        OSError: if the folder can't be read.
    """
    walk = _Walk(root)
    walk.walk("")
    problems = {name: problem for name, problem in walk.others.items() if problem != _NOT_AN_IMAGES_NAME}
    found: dict[str, str | None] = {**dict.fromkeys(walk.files), **problems}
    return dict(sorted(found.items(), key=_parts_of_name))


def _parts_of_name(item: tuple[str, object]) -> list[str]:
    return item[0].split("/")
