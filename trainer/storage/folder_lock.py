"""One run per folder: a lock that is taken over if its owner is dead, also where flock does nothing.

    .lock/00000007        the owner of the folder, as JSON; its modification time is the heartbeat

    held ── given back, owner's process dead, or heartbeat expired ──▶ free ── the next file is made ──▶ held

Only the file of the highest number, the newest generation, counts. A process that finds the folder free makes
the file of the next generation: making a file that must not exist yet is atomic on every file system, network
file systems included, so one of many processes wins. Generations never go back, so no process can win by a file
that was removed in the meantime.

A file says also which folder it was made in, by number: in a folder that was copied while its owner had it, the owner's
process is no sign of life, and only a heartbeat is.

An owner on this machine is dead when its process is. An owner on another machine is dead when its heartbeat
stands still for longer than several beats, by this process's monotonic clock: clocks are never compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from trainer.errors import BusyError

LOCK = ".lock"  # the folder, inside the one that it is about
_BEAT_SECONDS = 2.0
_PATIENCE_SECONDS = 12.0
_STAGED_SECONDS = 300.0


class FolderLock:
    """The right to write into a folder.

    Args:
        folder: The folder; it exists.
        beat: Seconds from one heartbeat to the next.
        patience: Seconds without a heartbeat after which an owner on another machine is dead.

    Attributes:
        lost: Whether another process had taken the folder over at the last heartbeat.
    """

    def __init__(self, folder: Path | str, beat: float = _BEAT_SECONDS, patience: float = _PATIENCE_SECONDS) -> None:
        self._folder, self._locked = Path(folder) / LOCK, Path(folder)
        self._beat, self._patience = beat, patience
        self._path: Path | None = None
        self._descriptor: int | None = None  # of `.lock`, for flock
        self._ended, self.lost = threading.Event(), False

    def take(self) -> None:
        """Takes the folder, also from a dead owner.

        Raises:
            BusyError: if a living process has the folder.
        """
        self._folder.mkdir(exist_ok=True)
        try:
            self._flock()
            self._path = self._take_file()
        except BusyError:
            self.give_back()
            raise
        threading.Thread(target=self._keep_beating, args=(self._path,), daemon=True, name="heartbeat").start()

    def require(self) -> None:
        """Checks that the folder is still this process's: if the heartbeat expired, another may have taken it over.

        Raises:
            BusyError: if another process has the folder.
        """
        newest = self._newest()
        if newest is None or self._file(newest) != self._path:
            raise self._busy(newest, "was taken over, because this run gave no sign of life for too long (a file "
                             "system that hung, a machine that slept), by")

    def give_back(self) -> None:
        """Declares that the folder has no owner any more."""
        self._ended.set()
        # On a disk that can't be written any more, the folder stays this process's until the process is dead.
        with contextlib.suppress(OSError):
            if self._path and self._path.exists():
                self._write(self._path.with_suffix(".new"), {**self._claim(), "given_back": True})
                os.replace(self._path.with_suffix(".new"), self._path)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._path = self._descriptor = None

    def _take_file(self) -> Path:
        """Makes the file of the next generation; returns its path."""
        while True:
            newest = self._newest()
            if newest is not None and not self._is_free(newest):
                if self._newest() == newest:
                    raise self._busy(newest)
                continue
            generation = (newest or 0) + 1
            if not self._make(generation):
                continue  # another process was faster; check that process's file
            if self._newest() == generation:
                break
            self._file(generation).unlink(missing_ok=True)
        self._tidy(generation)
        return self._file(generation)

    def _tidy(self, generation: int) -> None:
        """Removes the files of earlier generations, and what processes left that were killed while taking the lock."""
        now = self._file(generation).stat().st_mtime
        for name in os.listdir(self._folder):
            path = self._folder / name
            with contextlib.suppress(OSError):
                # Both times are the file system's. A process that is taking the lock needs a moment, not minutes.
                staged = not name.isdecimal() and now - path.stat().st_mtime > _STAGED_SECONDS
                if staged or (name.isdecimal() and int(name) < generation):
                    path.unlink()

    def _flock(self) -> None:
        """A second check, where flock works: it knows of owners in other containers of this machine."""
        self._descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy(self._newest()) from None
        except OSError:
            pass  # not every network file system has it

    def _generations(self) -> list[int]:
        return [int(name) for name in os.listdir(self._folder) if name.isascii() and name.isdecimal()
                and len(name) < 18]

    def _newest(self) -> int | None:
        return max(self._generations(), default=None)

    def _file(self, generation: int) -> Path:
        return self._folder / f"{generation:08d}"

    def _make(self, generation: int) -> bool:
        """Makes the file of a generation, whole at once; False if the file exists already."""
        staged = self._folder / f".{uuid.uuid4().hex}"
        self._write(staged, self._claim())
        try:
            os.link(staged, self._file(generation))
        except FileExistsError:
            return False
        except OSError:  # no hard links here; readers accept a file that is empty for a moment
            try:
                self._write(self._file(generation), self._claim(), "x")
            except FileExistsError:
                return False
        finally:
            staged.unlink()
        return True

    def _claim(self) -> dict[str, Any]:
        """What the file of a generation holds if this process is the owner."""
        return {**_this_process(), "folder": self._number()}

    def _number(self) -> int:
        """The file system's number of `.lock`: a moved folder keeps it, a copy has another one."""
        return os.stat(self._folder).st_ino

    @staticmethod
    def _write(path: Path, owner: dict[str, Any], mode: str = "w") -> None:
        with open(path, mode, encoding="utf-8") as file:
            json.dump(owner, file)

    def _owner(self, generation: int) -> dict[str, Any]:
        """What the file of a generation holds, or {} if it can't be read."""
        try:
            owner = json.loads(self._file(generation).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def _is_free(self, generation: int) -> bool:
        """Whether the owner gave the folder back, or is dead."""
        owner = self._owner(generation)
        if owner.get("given_back"):
            return True
        is_copy = owner.get("folder") not in (None, self._number())
        if not is_copy and owner.get("place") and owner["place"] == _boot_id():
            return _start_time(owner.get("pid")) != owner.get("started")
        return self._has_expired(generation)

    def _has_expired(self, generation: int) -> bool:
        """Watches the heartbeat of an owner whose process can't be seen from this one."""
        with contextlib.suppress(OSError):  # stderr may have no reader; it escapes what it can't show by itself
            print(f"lockstep: warning: {str(self._locked)!r} was last used by {self._describe(generation)}; waiting "
                  f"{self._patience:.0f} s to see whether it is alive", file=sys.stderr, flush=True)
        first_beat, deadline = self._last_beat(generation), time.monotonic() + self._patience
        while time.monotonic() < deadline:
            time.sleep(min(0.2, self._patience / 4))
            if self._last_beat(generation) != first_beat or self._newest() != generation:
                return False
        return True

    def _last_beat(self, generation: int) -> int | None:
        """The time of an owner's last heartbeat, in the file system's nanoseconds; None without a file."""
        try:
            # Opened, because network file systems ask the server for its times only then.
            descriptor = os.open(self._file(generation), os.O_RDONLY)
        except OSError:
            return None
        try:
            return os.fstat(descriptor).st_mtime_ns
        finally:
            os.close(descriptor)

    def _keep_beating(self, path: Path) -> None:
        while not self._ended.wait(self._beat):
            with contextlib.suppress(OSError):
                self.lost = self._file(self._newest() or 0) != path
                os.utime(path)

    def _describe(self, generation: int | None) -> str:
        owner = self._owner(generation) if generation is not None else {}
        words = f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
        return words.encode("unicode_escape").decode()  # the file may be another program's, or another user's

    def _busy(self, generation: int | None, how: str = "is in use by") -> BusyError:
        return BusyError(f"{self._locked} {how} {self._describe(generation)}",
                         "wait for it or stop it, or use another folder (--model_dir, of prepare --out)")


def _this_process() -> dict[str, Any]:
    """What another process must know to see whether this one is alive."""
    return {"pid": os.getpid(), "host": os.uname().nodename, "place": _boot_id(),
            "started": _start_time(os.getpid())}


def _boot_id() -> str | None:
    """This boot of this machine, and this container: processes with the same boot id see each other's process ids."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_time(pid: Any) -> int | None:
    """When a process started, in ticks since the boot; None if it has ended. Process ids are reused, times aren't."""
    try:
        # The name in brackets may contain anything, brackets too.
        state, *fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    except (OSError, ValueError, TypeError, IndexError, OverflowError):
        return None
