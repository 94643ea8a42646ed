"""Processes of `python -m MODULE` that don't each import TensorFlow: forks of a process that has imported it.

Imports are half of what a small run costs, and most tests of whole runs are about something else. A fork is a process
like any other: a child of the test's own process, with its own environment, folder and files; test_forks.py compares
the two. What is different: a fork has imported all that a run imports, and all forks have the same hash seed. `fresh`
is for tests of what happens before, or for one of two runs that must not depend on the hash seed.
"""

import atexit
import ctypes
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import time
import traceback

from process_environment import environment

_AT_START = ("PYTHONPATH", "LD_PRELOAD")  # each of their values has a server of its own
_LATER = {"TF_CONFIG", "SLOW_PHASE", "KILL_FOLDER", "KILL_AT", "KILL_LOG", "EIO_PATH", "EIO_TIMES"}
_SET_CHILD_SUBREAPER = 36
_servers = {}


def start(module, *words, fresh=False, more=None, **options):
    """Starts `python -m module words…`.

    Args:
        module: The module.
        *words: Its arguments.
        fresh: Whether it must be a new interpreter. It is one, too, for a launcher, which imports no TensorFlow, and
            where there are variables of which it isn't known that they are read late enough.
        more: Further variables of its environment.
        **options: Of `subprocess.Popen`.
    """
    words, variables = [*map(str, words)], more or {}
    if fresh or module.startswith("launch.") or variables.keys() - _LATER - {*_AT_START}:
        return subprocess.Popen([sys.executable, "-m", module, *words], env=environment(**variables), **options)
    return _Fork([module, *words], env=environment(**variables), **options)


class _Fork(subprocess.Popen):
    """A process that a server forks instead of this one."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags,
                       shell, *pipes_and_more):
        """What Popen calls between making its pipes and returning."""
        assert not preexec_fn and not pass_fds and not shell
        pipes = pipes_and_more[:6]
        files = [number if theirs < 0 else theirs for number, theirs in enumerate((pipes[0], pipes[3], pipes[5]))]
        try:
            self.pid = _server_of(env).fork({"words": args, "folder": os.path.abspath(cwd or "."), "variables": env},
                                            files)
        finally:
            self._close_pipe_fds(*pipes)
        self._child_created = True


def _server_of(variables):
    key = tuple(variables.get(name) for name in _AT_START)
    if key not in _servers:
        _servers[key] = _Server({name: value for name, value in variables.items() if name not in _LATER})
    return _servers[key]


class _Server:
    """A process that has imported TensorFlow; ends when this process does.

    Args:
        variables: Its environment.
    """

    def __init__(self, variables):
        self._socket, theirs = socket.socketpair()
        atexit.register(self._socket.close)
        theirs.set_inheritable(True)
        # Not by Popen: it lives longer than the test that needs it first.
        os.posix_spawn(sys.executable, [sys.executable, __file__, str(theirs.fileno())], variables)
        theirs.close()

    def fork(self, order, files):
        """Lets the server fork; returns the new process's id.

        The fork's own parent ends at once. This process, as the next one above that takes orphans in, then becomes the
        parent, and can wait for the fork as for any process that it started.
        """
        prctl = ctypes.CDLL(None).prctl
        assert prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        try:
            socket.send_fds(self._socket, [json.dumps(order).encode()], files)
            process = int(self._socket.recv(100))
        finally:
            prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        # Fails if it isn't this process's child; Popen would believe that it ended well.
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return process


def _serve(connection):
    """The server: imports what a run imports, and forks whenever it is asked to."""
    import matplotlib.figure  # noqa: F401

    import trainer.loop  # noqa: F401

    gc.freeze()
    while True:
        order, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not order:
            return
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            parent, process = os.getpid(), os.fork()
            if not process:
                while os.getppid() == parent:
                    time.sleep(0.001)
                _become(json.loads(order), files)
            os.write(writer, str(process).encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(between, 0)
        connection.send(os.read(reader, 100))
        for descriptor in (reader, *files):
            os.close(descriptor)


def _become(order, files):
    """Does in a fork what `python -m` does; never returns."""
    code = 1
    try:
        for number, descriptor in enumerate(files):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(order["variables"])
        os.chdir(order["folder"])
        sys.path[0] = order["folder"]
        module, *sys.argv[1:] = order["words"]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
