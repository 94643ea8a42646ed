"""Sealed folders: files that are known by a manifest with the hash of each."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

from trainer.storage.durable import flush, sha256, write_durably

# Errors of reading that say something of what is on the disk, not of who reads or when.
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO}


def list_files(folder):
    """The files below a folder but for its manifest and unfinished ones: relative paths, sorted."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*")
                  if path.is_file() and path.name not in ("manifest.json", ".manifest.json.new"))


def seal(folder, metadata):
    """Makes a folder's content durable and then says so in its manifest.json.

    A folder without a manifest never counts, so this is the moment from which it does.

    Args:
        folder: The folder, all its files written.
        metadata: What else the manifest holds, a JSON object.
    """
    folder = Path(folder)
    files = {}
    for name in list_files(folder):
        flush(folder / name)
        files[name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        _leave_cache(folder / name)
    for inner in [path for path in folder.rglob("*") if path.is_dir()] + [folder]:
        flush(inner)
    write_manifest(folder, {**metadata, "files": files})
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


def remove_sealed(folder):
    """Removes a sealed folder, its manifest first, so that what is left of it after a crash doesn't count."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(Path(folder) / "manifest.json")
    shutil.rmtree(folder, ignore_errors=True)
