"""One run per folder: a lock that is taken over from the dead, also where flock does nothing.

    .lock/00000007        who has the folder, as JSON; its modification time is the heartbeat

Only the file of the highest number counts. Whoever finds its owner dead, or that it was given back, makes
the file of the next number: making a file that must not be there yet is atomic on every file system,
network ones included, so one of many wins. Numbers never go back, so nobody can win by a file that was
removed in the meantime.

An owner on this machine is dead when its process is. One elsewhere is dead when its heartbeat stands
still for longer than several beats, by our own monotonic clock: clocks are never compared.
"""

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path

from trainer.errors import BusyError

_BEAT_SECONDS = 2.0
_PATIENCE_SECONDS = 12.0
_STAGED_SECONDS = 300.0


class FolderLock:
    """The right to write into a folder.

    Args:
        folder: The folder; it is there.
        beat: Seconds from one heartbeat to the next.
        patience: Seconds without one after which an owner on another machine is dead.

    Attributes:
        lost: Whether somebody took the folder over since, as of the last beat.
    """

    def __init__(self, folder, beat=_BEAT_SECONDS, patience=_PATIENCE_SECONDS):
        self._folder, self._of = Path(folder) / ".lock", Path(folder)
        self._beat, self._patience = beat, patience
        self._path = self._directory = None
        self._ended, self.lost = threading.Event(), False

    def take(self):
        """Takes the folder, or what a dead run left of its right to it.

        Raises:
            BusyError: if a living process has it.
        """
        self._folder.mkdir(exist_ok=True)
        try:
            self._flock()
            self._path = self._take_file()
        except BusyError:
            self.give_back()
            raise
        threading.Thread(target=self._beat_on, args=(self._path,), daemon=True, name="heartbeat").start()

    def require(self):
        """Makes sure that the folder is still ours: another may have thought us dead.

        Raises:
            BusyError: if it isn't.
        """
        newest = self._newest()
        if newest is None or self._file(newest) != self._path:
            raise self._busy(newest, "was taken over by")

    def give_back(self):
        """Says that nobody has the folder any more."""
        self._ended.set()
        # On a disk that can't be written any more it stays ours, until we are dead.
        with contextlib.suppress(OSError):
            if self._path and self._path.exists():
                self._write(self._path.with_suffix(".new"), {**_myself(), "given_back": True})
                os.replace(self._path.with_suffix(".new"), self._path)
        if self._directory is not None:
            os.close(self._directory)
        self._path = self._directory = None

    def _take_file(self):
        """Makes the file of the next number; returns its path."""
        while True:
            number = self._newest()
            if number is not None and not self._is_free(number):
                if self._newest() == number:
                    raise self._busy(number)
                continue
            mine = (number or 0) + 1
            if not self._make(mine):
                continue  # somebody was faster; now look at that one
            if self._newest() == mine:
                break
            self._file(mine).unlink(missing_ok=True)
        self._tidy(mine)
        return self._file(mine)

    def _tidy(self, mine):
        """Removes the files of those before, and what they left when they were killed while taking the lock."""
        now = self._file(mine).stat().st_mtime
        for name in os.listdir(self._folder):
            path = self._folder / name
            with contextlib.suppress(OSError):
                # Both times are the file system's. Who is taking the lock just now needs a moment, not minutes.
                staged = not name.isdecimal() and now - path.stat().st_mtime > _STAGED_SECONDS
                if staged or (name.isdecimal() and int(name) < mine):
                    path.unlink()

    def _flock(self):
        """A second witness, where it works: it knows of owners in other containers of this machine."""
        self._directory = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy(self._newest()) from None
        except OSError:
            pass  # not every network file system has it

    def _numbers(self):
        return [int(name) for name in os.listdir(self._folder) if name.isascii() and name.isdecimal()
                and len(name) < 18]

    def _newest(self):
        return max(self._numbers(), default=None)

    def _file(self, number):
        return self._folder / f"{number:08d}"

    def _make(self, number):
        """Makes the file of a number, whole at once; False if it is there already."""
        staged = self._folder / f".{uuid.uuid4().hex}"
        self._write(staged, _myself())
        try:
            os.link(staged, self._file(number))
        except FileExistsError:
            return False
        except OSError:  # no hard links here; readers can do with a file that is empty for a moment
            try:
                self._write(self._file(number), _myself(), "x")
            except FileExistsError:
                return False
        finally:
            staged.unlink()
        return True

    @staticmethod
    def _write(path, owner, mode="w"):
        with open(path, mode, encoding="utf-8") as file:
            json.dump(owner, file)

    def _owner(self, number):
        """What the file of a number says, or {} if it says nothing that can be read."""
        try:
            owner = json.loads(self._file(number).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def _is_free(self, number):
        owner = self._owner(number)
        if owner.get("given_back"):
            return True
        if owner.get("place") and owner["place"] == _place():
            return _started(owner.get("pid")) != owner.get("started")
        return self._stands_still(number)

    def _stands_still(self, number):
        """Watches the heartbeat of an owner whose process can't be seen from here."""
        print(f"lockstep: warning: {self._of} was last used by {self._describe(number)}; waiting "
              f"{self._patience:.0f} s to see whether it is alive", file=sys.stderr, flush=True)
        seen, deadline = self._pulse(number), time.monotonic() + self._patience
        while time.monotonic() < deadline:
            time.sleep(min(0.2, self._patience / 4))
            if self._pulse(number) != seen or self._newest() != number:
                return False
        return True

    def _pulse(self, number):
        try:
            # Opened, because network file systems look at the server's times only then.
            descriptor = os.open(self._file(number), os.O_RDONLY)
        except OSError:
            return None
        try:
            return os.fstat(descriptor).st_mtime_ns
        finally:
            os.close(descriptor)

    def _beat_on(self, path):
        while not self._ended.wait(self._beat):
            with contextlib.suppress(OSError):
                self.lost = self._file(self._newest() or 0) != path
                os.utime(path)

    def _describe(self, number):
        owner = self._owner(number) if number is not None else {}
        return f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"

    def _busy(self, number, how="is in use by"):
        return BusyError(f"{self._of} {how} {self._describe(number)}",
                         "wait for it or stop it, or use another --model_dir")


def _myself():
    return {"pid": os.getpid(), "host": os.uname().nodename, "place": _place(), "started": _started(os.getpid())}


def _place():
    """Where a process number means what it means here: this boot of this machine, this container."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid):
    """When a process started, in ticks since the boot; None if it is no more. Numbers are used again, times aren't."""
    try:
        # The name in brackets may hold anything, brackets too.
        state, *fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    except (OSError, ValueError, TypeError, IndexError, OverflowError):
        return None
