"""Files that survive: flushed to the disk, renamed into place, and known by their hash."""

import ctypes
import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from trainer.errors import StorageError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def flush(path: Path | str) -> None:
    """Waits until a file's or a folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(paths: Collection[Path | str]) -> None:
    """Waits until files and their folders are on the disk: a new file's name is part of its folder's content."""
    for path in [*paths, *{Path(path).parent for path in paths}]:
        flush(path)


def write_durably(path: Path | str, content: str | bytes) -> None:
    """Writes a file so that after a crash it holds either the old content or all of the new.

    Args:
        path: The file.
        content: Its new content; text becomes UTF-8.
    """
    path = Path(path)
    staged = path.with_name(f".{path.name}.new")
    with open(staged, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    flush(path.parent)


def require_room(folder: Path | str, size: int, what: str) -> None:
    """Checks whether data fits on the disk before any of it is written.

    Args:
        folder: The folder that the data is for; it or one of its parents exists.
        size: Bytes of the data.
        what: What the data is, as a user reads it.

    Raises:
        StorageError: if there is less room.
    """
    existing = Path(folder)
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < size:
        raise StorageError(f"no room for {what}: it needs {size / 1e6:,.1f} MB, and the disk of {folder} has "
                           f"{free / 1e6:,.1f} MB left",
                           "make room, or use a folder on another disk (--model_dir, of prepare --out); what is saved "
                           "already is kept")


def replace_folder(staged: Path | str, final: Path | str) -> None:
    """Replaces a folder by a finished one, in one step where the file system can do that.

    Args:
        staged: The finished folder; gone afterwards.
        final: The path that it gets; a folder that has this path is removed.
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


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two paths at once; False where that can't be done (Linux can, most of its file systems can)."""
    try:
        exchange = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return exchange(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0
