"""How a run may end other than well: one exception type per exit code, each with its fix.

Imports no TensorFlow, so that a wrong flag is answered at once.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType


class LockstepError(Exception):
    """A stop with a known cause. Subclasses fix the exit code.

    Args:
        cause: What rule was broken and what was received, in a line.
        fix: What the user can do about it, in a line.

    Attributes:
        code: The exit code.
        details: More that led to it, such as what native code wrote, to be shown above the cause; or None.
    """

    code: int = 1
    details: str | None = None

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(cause)
        self.cause, self.fix = cause, fix

    def __str__(self) -> str:
        return f"{self.cause}\n  fix: {self.fix}"


class UsageError(LockstepError):
    """Flags or configuration are wrong.

    Args:
        problems: One line for each thing that is wrong, or a single line.
        fix: What the user can do about it.
    """

    code = 64

    def __init__(self, problems: str | Iterable[str],
                 fix: str = "correct the above; --help lists every flag") -> None:
        problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n  ".join(problems), fix)
        self.problems = problems


class DataError(LockstepError):
    """The data is missing, damaged, or not what it was."""

    code = 65


class DeviceError(LockstepError):
    """A device that was asked for is missing or was lost."""

    code = 69


class WorkerError(LockstepError):
    """Another worker of the job died, hung or was cut off.

    Attributes:
        stood_at: The traceback of where this worker waited for one that stopped answering; or None.
    """

    code = 70
    stood_at: TracebackType | None = None


class BusyError(LockstepError):
    """The model_dir or a port belongs to another run."""

    code = 73


class StorageError(LockstepError):
    """Reading or writing failed, and nothing is left to fall back on."""

    code = 74


class Stopped(LockstepError):
    """The run was asked to stop; its state is saved."""

    code = 75


class DivergedError(LockstepError):
    """The loss or the gradients stopped being finite for too long."""

    code = 76


class catching:  # noqa: N801  a context manager, used as contextlib's are
    """Keeps the failure of a block in place of raising it; what is not a `LockstepError` passes through.

    Attributes:
        error: The `LockstepError` that the block ended with, or that `translate` made of its exception; else None.
    """

    error: LockstepError | None = None

    def __enter__(self) -> catching:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> bool:
        self.error = translate(error) if isinstance(error, Exception) else None
        return self.error is not None


class FirstFailure:
    """Keeps the first failure of what runs beside the training, until the workers agree on how to end.

    It may be entered many times: `with failures: …`. What is not a `LockstepError` passes through.

    Attributes:
        error: The first `LockstepError`, or None.
    """

    error: LockstepError | None = None

    def __enter__(self) -> FirstFailure:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> bool:
        failure = translate(error) if isinstance(error, Exception) else None
        self.error = self.error or failure
        return failure is not None

    def check(self) -> None:
        """Raises the first failure, if there is one.

        Raises:
            LockstepError: the first one.
        """
        if self.error:
            raise self.error


def of_code(code: int) -> type[LockstepError]:
    """The exception type of an exit code."""
    return next(kind for kind in LockstepError.__subclasses__() if kind.code == code)


def first_few(items: Sequence[object], most: int = 8) -> str:
    """Items as a message lists them: all if they are few, else the first ones and how many more there are.

    Args:
        items: The items.
        most: How many are listed, at most.
    """
    shown = ", ".join(map(str, items[:most]))
    return shown if len(items) <= most else f"{shown} and {len(items) - most:,} more"


_FIXES = {errno.ENOSPC: "free some room there, or choose a folder on another disk (--model_dir or --out)",
          errno.EDQUOT: "free some of your quota, or choose a folder elsewhere (--model_dir or --out)",
          errno.EROFS: "choose a folder that can be written (--model_dir or --out)",
          errno.EACCES: "choose a path that you may use, or fix its permissions",
          errno.EPERM: "choose a path that you may use, or fix its permissions",
          errno.ENOTDIR: "choose a folder whose parents are folders (--model_dir or --out)",
          errno.EEXIST: "choose a path that is a folder, or does not exist yet (--model_dir or --out)",
          errno.EMFILE: "raise the limit of open files (ulimit -n 65536), then run the same command again",
          errno.ENFILE: "this machine has too many files open: end other programs, then run the same command again",
          errno.ENOMEM: "free some memory, then run the same command again",
          errno.EIO: "check the disk; the state before this stop is kept"}


# What a disk or a network file system answers for a moment, or a machine that is short of something: it says nothing
# of what is in a file.
_TRANSIENT = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT,
              errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET}


def raise_if_transient(error: OSError, path: object) -> None:
    """Ends a reading whose failure says nothing of the data.

    Args:
        error: The failure.
        path: What was read, as a user reads it.

    Raises:
        StorageError: if the same may succeed at another time.
    """
    if error.errno in _TRANSIENT:
        of_machine = error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
        raise StorageError(f"cannot read {path}: {error.strerror}", _FIXES[error.errno] if of_machine else
                           "check the disk or the network file system, then run the same command again") from None


def from_os_error(error: OSError) -> StorageError:
    """Translates an operating system's refusal into a `StorageError`."""
    fix = _FIXES.get(error.errno or 0, "check the path and the disk, then run the same command again")
    where = f": {error.filename}" if error.filename else ""
    if error.errno == errno.ENOENT and not os.path.isabs(str(error.filename or "")) and not has_folder():
        where += "; the folder that this was started in is gone"
        fix = "run the same command again from a folder that stays; it goes on from the last checkpoint"
    elif "temporary directory" in str(error.strerror) or _is_temporary(error.filename):
        fix = "free some room there, or set TMPDIR to a folder that can be written"
    return StorageError(f"{error.strerror or error}{where}", fix)


def has_folder() -> bool:
    """Whether the folder that this process was started in, where relative paths begin, still exists."""
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _is_temporary(path: object) -> bool:
    """Whether a path lies in the folder for temporary files, as far as one was needed yet."""
    return isinstance(path, str) and tempfile.tempdir is not None and path.startswith(f"{tempfile.tempdir}/lockstep-")


def translate(error: BaseException) -> LockstepError | None:
    """The `LockstepError` that an exception means.

    Args:
        error: Any exception.

    Returns:
        A `LockstepError`; None for an exception that only a defect of the program can cause.
    """
    if isinstance(error, LockstepError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    if isinstance(error, MemoryError):
        return UsageError("out of memory on the host", "lower --batch_size, or free some memory")
    return next((failure for translator in _TRANSLATORS if (failure := translator(error))), None)


_Translator = Callable[[BaseException], LockstepError | None]
_TRANSLATORS: list[_Translator] = []


def register_translator(translator: _Translator) -> None:
    """Adds a library's errors to those that `translate` knows; called by the module that imports the library.

    Args:
        translator: A function of an exception to a `LockstepError`, or to None if the exception isn't the library's.
    """
    _TRANSLATORS.append(translator)
