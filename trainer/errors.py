"""How a run may end other than well: one exception type per exit code, each with its fix.

Imports no TensorFlow, so that a wrong flag is answered at once.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback


class LockstepError(Exception):
    """A stop with a known cause. Subclasses fix the exit code.

    Args:
        cause: What rule was broken and what was received, in a line.
        fix: What the user can do about it, in a line.

    Attributes:
        details: What native code said before, to be shown above the cause; or None.
    """

    code = 1
    details = None

    def __init__(self, cause, fix):
        super().__init__(cause)
        self.cause, self.fix = cause, fix

    def __str__(self):
        return f"{self.cause}\n  fix: {self.fix}"


class UsageError(LockstepError):
    """Flags or configuration are wrong.

    Args:
        problems: One line for each thing that is wrong, or a single line.
        fix: What the user can do about it.
    """

    code = 64

    def __init__(self, problems, fix="correct the above; --help lists every flag"):
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
        stood_at: Where this worker waited for one that fell silent: a traceback, or None.
    """

    code = 70
    stood_at = None


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


def failure_of(action):
    """The `LockstepError` that an action ends with, or None; see `as_ours`. Whatever is none passes through."""
    try:
        action()
    except Exception as error:
        ours = as_ours(error)
        if not ours:
            raise
        return ours


class catching:  # noqa: N801  a context manager, used as contextlib's are
    """Keeps the failure of a block in place of raising it; what is no `LockstepError` passes through.

    Attributes:
        error: The `LockstepError` that the block ended with (see `as_ours`), or None.
    """

    error = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        self.error = as_ours(error) if isinstance(error, Exception) else None
        return self.error is not None


def of_code(code):
    """The exception type of an exit code."""
    return next(kind for kind in LockstepError.__subclasses__() if kind.code == code)


_FIXES = {errno.ENOSPC: "free some room, or choose another --model_dir",
             errno.EDQUOT: "free some of your quota, or choose another --model_dir",
             errno.EROFS: "choose a --model_dir that can be written",
             errno.EACCES: "choose a path that you may use, or fix its permissions",
             errno.EPERM: "choose a path that you may use, or fix its permissions",
             errno.ENOTDIR: "choose a --model_dir whose parents are folders",
             errno.EEXIST: "choose a --model_dir that is a folder, or not there yet",
             errno.EIO: "check the disk; the state before this stop is kept"}


def from_os_error(error):
    """Translates an operating system's refusal into a `StorageError`."""
    fix = _FIXES.get(error.errno, "check the path and the disk, then run the same command again")
    where = f": {error.filename}" if error.filename else ""
    return StorageError(f"{error.strerror or error}{where}", fix)


def as_ours(error):
    """What an exception is in terms of exit codes.

    Args:
        error: Any exception.

    Returns:
        A `LockstepError`; None for what neither a user nor the world can cause.
    """
    if isinstance(error, LockstepError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    if isinstance(error, MemoryError):
        return UsageError("out of memory on the host", "lower --batch_size, or free some memory")
    # TensorFlow's own errors, if it got as far as that; this module must not import it.
    native = sys.modules.get("trainer.process.tf_import")
    return native and native.as_ours(error)


def run_to_exit_code(program, *arguments):
    """Calls `program` and turns how it ends into an exit code and, where not 0, words on stderr.

    Args:
        program: A callable; what it returns is ignored.
        *arguments: Passed on to it.

    Returns:
        0, or the code of the `LockstepError`. Anything else that was raised is a defect of this
        program and passes through with its traceback.
    """
    try:
        program(*arguments)
        return 0
    except LockstepError as error:
        return _say(error)
    except KeyboardInterrupt:
        return _say(Stopped("stopped by Ctrl-C before there was anything to save", "run the same command again"))
    except BrokenPipeError:
        # The reader of our output left (`| head`): not an error, and nobody is there to tell.
        with contextlib.suppress(OSError):
            sys.stdout = None
        return 128 + signal.SIGPIPE
    except Exception as error:
        ours = as_ours(error)
        if not ours:
            raise
        return _say(ours)


def run_as_process(program):
    """Calls `program` and ends the process with the code that it returns, without the interpreter's own end.

    TensorFlow's pipelines read ahead in threads that call Python. One that is in the middle of that when the
    interpreter ends never comes back, and TensorFlow would wait for it for ever.

    Args:
        program: A callable that returns an exit code.
    """
    code = 1
    try:
        code = program()
    except SystemExit as ending:
        code = ending.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _say(error):
    if isinstance(error, WorkerError) and error.stood_at:
        _tell_stack(error.stood_at)
    if error.details:
        tell(f"lockstep: TensorFlow's libraries said:\n{error.details}")
    tell(f"lockstep: {error}")
    return error.code


def _tell_stack(stood_at):
    """Whoever looks for what hung needs to know where each of those stood that waited for it."""
    tell("lockstep: where this worker stood:")
    with contextlib.suppress(OSError, AttributeError):  # nobody may be there to hear it
        traceback.print_tb(stood_at, file=sys.stderr)


def tell(words):
    """Prints to stderr; if its reader has left, to nobody: the exit code says it, too."""
    try:
        print(words, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None
