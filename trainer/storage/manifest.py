"""Sealed folders: files that are known by a manifest with the hash of each."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.storage.durable import flush, sha256, write_durably

# Errors of reading that tell about what is on the disk, and not about who reads or when.
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def list_files(folder: Path | str) -> list[str]:
    """The files below a folder, without its manifest and unfinished manifests: relative paths, sorted."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*")
                  if path.is_file() and path.name not in ("manifest.json", ".manifest.json.new"))


def seal(folder: Path | str, metadata: Mapping[str, Any]) -> None:
    """Makes a folder's content durable, and then writes its manifest.json.

    A folder counts from the moment at which it has a manifest.

    Args:
        folder: The folder, all its files written.
        metadata: What the manifest holds in addition to the files' hashes: a JSON object.
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


def _leave_cache(path: Path) -> None:
    """Frees the memory that caches a file on the disk: the training data and the next save need that memory more."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError, AttributeError):  # advice; not every system takes it
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path | str, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a folder, with a hash of the manifest's own content."""
    content = {name: value for name, value in manifest.items() if name != "content_sha256"}
    write_durably(Path(folder) / "manifest.json",
                  json.dumps({**content, "content_sha256": _content_hash(content)}, indent=2))


def _content_hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def peek_manifest(folder: Path | str) -> tuple[dict[str, Any] | None, str | None]:
    """Reads the manifest of a sealed folder without checking the other files; returns what `read_manifest` returns."""
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


def read_manifest(folder: Path | str) -> tuple[dict[str, Any] | None, str | None]:
    """Reads the manifest of a sealed folder and compares every file with it.

    Args:
        folder: The folder.

    Returns:
        (manifest, fault): the parsed manifest and None, or None and what is wrong, in a few words.

    Raises:
        OSError: if a file can't be read now and may be whole all the same.
    """
    folder = Path(folder)
    manifest, fault = peek_manifest(folder)
    if manifest is None:
        return None, fault
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        return None, "its manifest lists no files"
    for name, entry in listed.items():
        fault = _fault(folder / name, entry)
        if fault:
            return None, f"{name} {fault}"
    return manifest, None


def _fault(path: Path, entry: Any) -> str | None:
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


def _unreadable(error: OSError) -> str:
    """The sentence for a damaged file; raises the error if the file can't be read now and may be whole all the same."""
    if error.errno not in _DAMAGE:
        raise error
    return f"can't be read: {error.strerror}"


def remove_sealed(folder: Path | str) -> None:
    """Removes a sealed folder, its manifest first: after a crash, what is left of the folder doesn't count."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(Path(folder) / "manifest.json")
    shutil.rmtree(folder, ignore_errors=True)
