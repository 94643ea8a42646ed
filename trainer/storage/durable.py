"""Files that survive: flushed to the disk, renamed into place, and known by their hash."""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

from trainer.errors import StorageError

# Errors of reading that say something of what is on the disk, not of who reads or when.
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO}
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


def list_files(folder):
    """The files below a folder but for its manifest and unfinished ones: relative paths, sorted."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*")
                  if path.is_file() and path.name not in ("manifest.json", ".manifest.json.new"))


def seal(folder, facts):
    """Makes a folder's content durable and then says so in its manifest.json.

    A folder without a manifest never counts, so this is the moment from which it does.

    Args:
        folder: The folder, all its files written.
        facts: What else the manifest holds, a JSON object.
    """
    folder = Path(folder)
    files = {}
    for name in list_files(folder):
        flush(folder / name)
        files[name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        _leave_cache(folder / name)
    for inner in [path for path in folder.rglob("*") if path.is_dir()] + [folder]:
        flush(inner)
    write_manifest(folder, {**facts, "files": files})
    flush(folder.parent)


def _leave_cache(path):
    """Frees the memory that caches a file which is on the disk: the data needs it more, and so does the next save."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError, AttributeError):  # advice; not every system takes it
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def write_manifest(folder, manifest):
    """Puts a manifest into a folder whose files it describes, with a hash of its own content."""
    content = {name: value for name, value in manifest.items() if name != "content_sha256"}
    write_durably(Path(folder) / "manifest.json",
                  json.dumps({**content, "content_sha256": _content_hash(content)}, indent=2))


def _content_hash(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def peek_manifest(folder):
    """As `read_manifest`, but looks at no other file."""
    try:
        manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, "it has no manifest: it was never finished"
    except OSError as error:
        return None, f"its manifest {_unreadable(error)}"
    except (ValueError, RecursionError) as error:
        return None, f"its manifest can't be read ({type(error).__name__})"
    content = dict(manifest) if isinstance(manifest, dict) else {}
    if content.pop("content_sha256", None) != _content_hash(content):
        return None, "its manifest is not what was written: its SHA-256 differs"
    return manifest, None


def read_manifest(folder):
    """Reads the manifest of a sealed folder and holds every file against it.

    Args:
        folder: The folder.

    Returns:
        (manifest, fault): the parsed manifest and None, or None and what is wrong, in a few words.
    """
    folder = Path(folder)
    manifest, fault = peek_manifest(folder)
    if fault:
        return None, fault
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        return None, "its manifest lists no files"
    for name, entry in listed.items():
        fault = _fault(folder / name, entry)
        if fault:
            return None, f"{name} {fault}"
    return manifest, None


def _fault(path, entry):
    """What is wrong with a file that a manifest lists, or None."""
    try:
        digest, size = str(entry["sha256"]), int(entry["bytes"])
        if path.stat().st_size != size:
            return f"has {path.stat().st_size:,} bytes, not {size:,}"
        return None if sha256(path) == digest else "is not what was written: its SHA-256 differs"
    except OSError as error:
        return _unreadable(error)
    except (KeyError, TypeError, ValueError) as error:
        return f"has no proper entry in the manifest ({type(error).__name__}: {error})"


def _unreadable(error):
    """Says that a file is damaged; raises the error if the file may be whole and just cannot be read now."""
    if error.errno not in _DAMAGE:
        raise error
    return f"can't be read: {error.strerror}"


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


def remove_sealed(folder):
    """Removes a sealed folder, its manifest first, so that what is left of it after a crash doesn't count."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(Path(folder) / "manifest.json")
    shutil.rmtree(folder, ignore_errors=True)


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
