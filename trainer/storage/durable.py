"""Files that survive: flushed to the disk, renamed into place, and known by their hash."""

import ctypes
import hashlib
import os
import shutil
from pathlib import Path

from trainer.errors import StorageError

_HERE, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h: AT_FDCWD, and what renameat2 takes


def sha256(path):
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def flush(path):
    """Waits until a file's or a folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(paths):
    """Likewise for files and the folders that they are in: a new file's name is in its folder."""
    for path in [*paths, *{Path(path).parent for path in paths}]:
        flush(path)


def write_durably(path, text):
    """Writes a text file so that after a crash either the old content is there or all of the new.

    Args:
        path: Where.
        text: What.
    """
    path = Path(path)
    staged = path.with_name(f".{path.name}.new")
    with open(staged, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    flush(path.parent)


def require_room(folder, size, what):
    """Looks whether so much fits on the disk before any of it is written.

    Args:
        folder: Where it shall be; it or one of its parents is there.
        size: Bytes.
        what: What it is, for people.

    Raises:
        StorageError: if there is less room.
    """
    there = Path(folder)
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < size:
        raise StorageError(f"no room for {what}: it needs {size / 1e6:,.1f} MB, and the disk of {folder} has "
                           f"{free / 1e6:,.1f} MB left",
                           "make room, or start with another --model_dir; what is saved already is kept")


def replace_folder(staged, final):
    """Puts a finished folder in the place of an older one, in one step where the file system can do that.

    Args:
        staged: The finished folder; gone afterwards.
        final: Its place.
    """
    staged, final = Path(staged), Path(final)
    if not final.exists():
        os.rename(staged, final)
    elif not _exchange(staged, final):
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(final, old)
        os.rename(staged, final)
        staged = old
    flush(final.parent)
    shutil.rmtree(staged, ignore_errors=True)


def _exchange(one, other):
    """Exchanges two paths at once; False where that can't be done (Linux can, most of its file systems can)."""
    try:
        exchange = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return exchange(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0
