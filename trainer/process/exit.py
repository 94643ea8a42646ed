"""How a process ends: with an exit code, and words on stderr."""

import contextlib
import os
import signal
import sys
import traceback

from trainer.errors import LockstepError, Stopped, WorkerError, translate


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
        ours = translate(error)
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
