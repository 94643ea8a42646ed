"""How a process ends: with an exit code, and a message on stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from trainer.errors import LockstepError, Stopped, UsageError, WorkerError, has_folder, translate


def run_to_exit_code(program: Callable[..., object], *arguments: Any) -> int:
    """Calls `program` and turns how it ends into an exit code and, where that is not 0, a message on stderr.

    Args:
        program: A callable; what it returns is ignored.
        *arguments: The arguments of the call.

    Returns:
        0, or the code of the `LockstepError`.

    Raises:
        Exception: what `translate` doesn't know: a defect of this program, with its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # another kind of stream, or none, has no such method
        with contextlib.suppress(ValueError, OSError):
            if reconfigure:
                reconfigure(errors="backslashreplace")  # what a terminal or a pipe can't show ends no run
    try:
        if not has_folder():
            raise UsageError("the folder that this is started in is gone",
                             'go to one that is there; cd "$PWD" where it was made again')
        program(*arguments)
        return 0
    except LockstepError as error:
        return _report(error)
    except KeyboardInterrupt:
        return _report(Stopped("stopped by Ctrl-C before there was anything to save", "run the same command again"))
    except BrokenPipeError:
        # The reader of this process's output left (`| head`): not an error, and a message would have no reader.
        with contextlib.suppress(OSError):
            sys.stdout = None
        return 128 + signal.SIGPIPE
    except Exception as error:
        failure = translate(error)
        if not failure:
            raise
        return _report(failure)


def run_as_process(program: Callable[[], int]) -> NoReturn:
    """Calls `program` and ends the process with the code that it returns, without the interpreter's own shutdown.

    TensorFlow's pipelines read ahead in threads that call Python. A thread that is inside such a call when the
    interpreter shuts down never returns, and TensorFlow would wait for it for ever.

    Args:
        program: A callable that returns an exit code.
    """
    code = 1
    try:
        code = program()
    except SystemExit as ending:
        code = ending.code or 0
        if not isinstance(code, int):  # Python's own rule: a text is a message, and the code is 1
            tell(str(code))
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _report(error: LockstepError) -> int:
    """Prints an error to stderr, and returns its exit code."""
    if isinstance(error, WorkerError) and error.stood_at:
        _print_stack(error.stood_at)
    if error.details:
        tell(f"lockstep: {error.details}")
    tell(f"lockstep: {error}")
    return error.code


def _print_stack(stood_at: TracebackType) -> None:
    """Prints where this worker waited: a user who looks for the worker that hung needs the stacks of all others."""
    tell("lockstep: where this worker stood:")
    with contextlib.suppress(OSError, AttributeError):  # stderr may have no reader
        traceback.print_tb(stood_at, file=sys.stderr)


def say(message: str) -> None:
    """Prints to stdout, as `printable` makes it."""
    print(printable(message), flush=True)


def say_exactly(text: str) -> None:
    """Writes a text to stdout as it is, in UTF-8 whatever the terminal shows: a script or a file that programs read.

    Args:
        text: The text, with its last line break. Names in it that aren't Unicode keep their bytes.
    """
    if binary := getattr(sys.stdout, "buffer", None):
        sys.stdout.flush()
        binary.write(text.encode("utf-8", "surrogateescape"))
        binary.flush()
    else:  # a notebook's, or none
        print(text, end="", flush=True)


def printable(text: str) -> str:
    """A text that does nothing to a terminal: names of files, classes and flags are other people's words.

    Args:
        text: Any text.

    Returns:
        The text with everything escaped that is neither printable nor a line break or tab: control characters, marks
        that reverse the direction of writing, halves of surrogate pairs.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() or character in "\n\t" else
                   character.encode("unicode_escape").decode() for character in text)


def in_a_line(text: str) -> str:
    """A text as `printable` makes it, with line breaks and tabs escaped, too: a name in a table's row."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def tell(message: str) -> None:
    """Prints to stderr; drops the message if stderr has no reader any more, for the exit code says it, too."""
    try:
        print(printable(message), file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None
