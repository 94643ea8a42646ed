"""What lies in a folder of images: every file's name, size and header.

What was read is remembered in the run's folder, so that the next start reads only what has changed since.
"""

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from trainer.data.images import pillow_reader
from trainer.errors import DataError
from trainer.process.exit import tell

_MEMORY = "data_scan.json"
_MANY = 20_000  # headers whose reading takes long enough to be told of
_THREADS = 8
# What systems and tools leave in folders by themselves.
_JUNK = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", ".ipynb_checkpoints", ".git", "@eaDir"}


class Found(NamedTuple):
    """An image file. size: Bytes. look: A `images.ImageHeader`."""

    size: int
    look: pillow_reader.ImageHeader


class Scan(NamedTuple):
    """What a folder holds.

    images: name, relative to the folder, to `Found`; all files that end as image files do. others: name to
    what is wrong with anything else. folders: names of all folders.
    """

    images: dict[str, Found]
    others: dict[str, str]
    folders: set[str]


def scan(root, memory=None):
    """Looks at everything below a folder.

    Args:
        root: The folder.
        memory: The folder in which to remember what was read; None to remember nothing. It isn't made.

    Returns:
        A `Scan`.

    Raises:
        DataError: if there is no such folder.
    """
    if not os.path.isdir(root):
        raise DataError(f"--data_dir must be a folder; {root} is {'none' if os.path.exists(root) else 'not there'}",
                        "name the folder that holds train/CLASS/ or CLASS/ folders of images")
    files, others, folders = {}, {}, set()
    _walk(root, "", files, others, folders)
    place = Path(memory or root, _MEMORY)
    known = _recall(place, root) if memory else {}
    looks = {name: pillow_reader.ImageHeader(*known[name][2:]) for name, stat in files.items()
             if known.get(name, [])[:2] == [stat.st_size, stat.st_mtime_ns]}
    new = sorted(files.keys() - looks.keys())
    if len(new) > _MANY:
        tell(f"reading the headers of {len(new):,} images in {root}")
    with ThreadPoolExecutor(_THREADS) as threads:  # opening files is mostly waiting where they are far away
        looks.update(zip(new, threads.map(lambda name: pillow_reader.look(os.path.join(root, name)), new, chunksize=64),
                         strict=True))
    if memory and new and Path(memory).is_dir():
        _remember(place, root, {name: [stat.st_size, stat.st_mtime_ns, *looks[name]] for name, stat in files.items()})
    return Scan({name: Found(files[name].st_size, looks[name]) for name in sorted(files)}, others, folders)


def _walk(root, folder, files, others, folders, above=()):
    """Collects what is below root/folder; `above` are the true paths of the folders that it is in."""
    here = os.path.realpath(os.path.join(root, folder))
    if here in above:
        others[folder] = "it is a link in a circle"
        return
    if folder:
        folders.add(folder)
    with os.scandir(os.path.join(root, folder)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = os.path.join(folder, entry.name)
            if entry.name in _JUNK or entry.name.startswith("._"):
                continue
            try:
                if entry.is_symlink() and not os.path.exists(entry.path):
                    others[name] = "it is a link to nothing"
                elif entry.is_dir():
                    _walk(root, name, files, others, folders, (*above, here))
                elif not entry.is_file():
                    others[name] = "it is not a regular file"
                elif entry.name.lower().endswith(pillow_reader.ENDINGS):
                    files[name] = entry.stat()
                else:
                    others[name] = "it doesn't end as image files do"
            except OSError as error:
                others[name] = f"it can't be read: {error.strerror}"


def _recall(place, root):
    """name to [bytes, time of change in ns, *look] as of the last time; what can't be read is forgotten."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        value = json.loads(place.read_text(encoding="utf-8"))
        if value["root"] == os.path.abspath(root):
            return {name: entry for name, entry in value["files"].items()
                    if [type(part) for part in entry[:6]] == [int] * 6 and type(entry[6]) in (str, type(None))}
    return {}


def _remember(place, root, files):
    staged = place.with_name(f".{place.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a help for the next start, nothing that this one needs
        staged.write_text(json.dumps({"root": os.path.abspath(root), "files": files}), encoding="utf-8")
        os.replace(staged, place)
