"""SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C as a request that the loop asks for, not as the end of the process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NamedTuple, NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)
SAME_REQUEST_SECONDS = 1.0
_PATIENCE_SECONDS = 4.0
_TICK_SECONDS = 0.5


class _Section(NamedTuple):
    """A stretch of the program in which the process may end.

    Args:
        doing: What the process does, as a user reads it.
        wait_until_finished: Waits for writing that is under way, and returns whether all of it succeeded.
    """

    doing: str
    wait_until_finished: Callable[[], bool]


def _nothing_under_way() -> bool:
    return True


def _ignore(signum: int, frame: FrameType | None) -> None:
    """The handler of all signals: what counts is the byte that Python writes into the pipe."""


class StopRequest:
    """While it is entered, the first signal is remembered and a second one ends the process at once.

    Signals within a second are one request: `timeout`, launchers and terminals often send to the process and
    to its group.

    A thread reads them: Python's own handlers wait until the main thread comes back from TensorFlow, which
    may be compiling for minutes. Where nothing would be lost (see `nothing_to_save`), that thread ends the
    process itself if the main thread doesn't come back within seconds.

    SIGHUP, which says that the terminal is gone, stays ignored where it is ignored before, as by nohup.

    Args:
        exits_process: Whether the process ends after the `with` block. Signals then have no effect after the block:
            the exit code is decided.

    Attributes:
        signal: The name of the signal that came, or None.
        owns_process: Whether the process is this program's, so that its streams are, too.
    """

    owns_process = True

    def __init__(self, exits_process: bool = False) -> None:
        self.signal: str | None = None
        self._exits_process = exits_process
        self._section: _Section | None = None  # the one that the process is in
        self._section_changes = threading.Condition()
        self._seen_pending: set[str] = set()

    def __enter__(self) -> StopRequest:
        self._stderr = os.dup(2)  # a copy: while TensorFlow is imported, what is written to 2 is kept back
        self._before = {signum: handler for signum in _SIGNALS
                        if (handler := signal.getsignal(signum)) != signal.SIG_IGN or signum != signal.SIGHUP}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._outer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self.listen()
        threading.Thread(target=self._read_signals, daemon=True, name="signals").start()
        return self

    def listen(self) -> None:
        """Listens (again): TensorFlow puts a handler of its own over SIGTERM when several workers start."""
        for signum in self._before:
            signal.signal(signum, _ignore)

    @property
    def descriptor(self) -> int:
        """The file descriptor from which a thread reads the signals."""
        return self._reader

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Keeps signals pending in a block whose native code puts handlers of its own in place of Python's.

        They are noticed all the same: the reading thread asks for those that are pending. Threads that the block
        starts never receive any.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)
        try:
            yield
        finally:
            self.listen()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            # SIG_IGN is the system's: Python's own handlers end before the interpreter does.
            signal.signal(signum, signal.SIG_IGN if self._exits_process else handler)
        signal.set_wakeup_fd(self._outer)
        os.close(self._writer)  # ends the thread

    @contextlib.contextmanager
    def nothing_to_save(self, doing: str,
                        wait_until_finished: Callable[[], bool] = _nothing_under_way) -> Iterator[None]:
        """Declares that a block has nothing that must be saved: after a signal the process may end anywhere in it.

        Blocks may be nested. The end of a block doesn't return if the process is ending.

        Args:
            doing: What the process does, as a user reads it: "compiling".
            wait_until_finished: Waits for writing that is under way, and returns whether all of it succeeded.
        """
        outer = self._enter_section(_Section(doing, wait_until_finished))
        try:
            yield
        finally:
            self._enter_section(outer)

    def _enter_section(self, section: _Section | None) -> _Section | None:
        """Makes a section the current one, and returns the section before it."""
        with self._section_changes:
            before, self._section = self._section, section
            self._section_changes.notify_all()
            return before

    def _read_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # they are the main thread's
        with os.fdopen(self._reader, "rb", buffering=0) as pipe:
            while True:
                if select.select([pipe], [], [], _TICK_SECONDS)[0]:
                    byte = pipe.read(1)
                    if not byte:
                        return
                    if byte[0] in _SIGNALS:
                        self._receive(signal.Signals(byte[0]).name)
                for signum in signal.sigpending() & self._before.keys():
                    name = signal.Signals(signum).name
                    if name not in self._seen_pending:
                        self._receive(name)
                        self._seen_pending.add(name)

    def _receive(self, name: str) -> None:
        if name in self._seen_pending:  # it was received while it was pending, and is delivered now
            self._seen_pending.discard(name)
            return
        now = time.monotonic()
        if self.signal and now - self._first < SAME_REQUEST_SECONDS:
            return
        if self.signal:
            self._tell(f"\nlockstep: a second signal ({name}): stopping at once\n"
                       "  fix: run the same command again; it goes on from the last checkpoint\n")
            self._leave()
        self.signal, self._first = name, now
        threading.Thread(target=self._end_if_stuck, daemon=True, name="patience").start()
        self._tell(f"\nlockstep: {name}: saving, then stopping\n")

    def _end_if_stuck(self) -> None:
        """Ends the process where nothing would be lost, if the main thread doesn't end it soon."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        time.sleep(_PATIENCE_SECONDS)
        with self._section_changes:
            while self._section is None:
                self._section_changes.wait()
            section = self._section
            if section.wait_until_finished():
                self._tell(f"lockstep: asked to stop ({self.signal}) while {section.doing}; nothing was left to save\n"
                           "  fix: run the same command again; it goes on from there\n")
                self._leave()

    def _tell(self, message: str) -> None:
        """Writes past Python's buffers, for the main thread may be inside a print; stderr may have no reader."""
        with contextlib.suppress(OSError):
            os.write(self._stderr, message.encode())

    @staticmethod
    def _leave() -> NoReturn:
        with contextlib.suppress(OSError):
            if os.isatty(1):
                os.write(1, b"\x1b[?25h")  # the progress line hides the cursor
        os._exit(75)
