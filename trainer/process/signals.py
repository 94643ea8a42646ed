"""SIGTERM, SIGUSR1 and Ctrl-C as a request that the loop asks for, not as the end of the process."""

import contextlib
import os
import signal
import threading
import time

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_SAME_REQUEST_SECONDS = 1.0
_PATIENCE_SECONDS = 4.0


def _nothing_under_way():
    return True


class StopRequest:
    """While it is entered, the first signal is remembered and a second one ends the process at once.

    Signals within a second are one request: `timeout`, launchers and terminals often send to the process and
    to its group.

    A thread reads them: Python's own handlers wait until the main thread comes back from TensorFlow, which
    may be compiling for minutes. Where nothing would be lost (see `nothing_to_save`), that thread ends the
    process itself if the main thread doesn't come back within seconds.

    Args:
        exits_process: Whether the process ends after it. Signals stay without effect then: how it ends is decided.

    Attributes:
        signal: The name of the signal that came, or None.
    """

    def __init__(self, exits_process=False):
        self.signal, self._for_good = None, exits_process
        self._section = None  # (what the process is doing, how to wait for what is under way)
        self._section_changes = threading.Condition()

    def __enter__(self):
        # Of its own: while TensorFlow is imported, what goes to the usual one is kept back.
        self._stderr = os.dup(2)
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._outer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self.listen()
        threading.Thread(target=self._read_signals, daemon=True, name="signals").start()
        return self

    def listen(self):
        """Listens (again): TensorFlow puts a handler of its own over SIGTERM when several workers start."""
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # what counts is the byte in the pipe

    def __exit__(self, *_):
        for number, handler in self._before.items():
            # Ignored by the system: handlers of Python's own end before the interpreter does.
            signal.signal(number, signal.SIG_IGN if self._for_good else handler)
        signal.set_wakeup_fd(self._outer)
        os.close(self._writer)  # ends the thread

    @contextlib.contextmanager
    def nothing_to_save(self, doing, wait_until_finished=_nothing_under_way):
        """Declares that a block has nothing that must be saved: after a signal the process may end anywhere in it.

        Sections may be nested. The end of one doesn't return if the process is ending.

        Args:
            doing: What the process does, as a user reads it: "compiling".
            wait_until_finished: Waits for writing that is under way, and returns whether all of it succeeded.
        """
        outer = self._enter_section((doing, wait_until_finished))
        try:
            yield
        finally:
            self._enter_section(outer)

    def _enter_section(self, section):
        """Makes a section the current one, and returns the one before."""
        with self._section_changes:
            before, self._section = self._section, section
            self._section_changes.notify_all()
            return before

    def _read_signals(self):
        with os.fdopen(self._reader, "rb", buffering=0) as pipe:
            while byte := pipe.read(1):
                if byte[0] in _SIGNALS:
                    self._receive(signal.Signals(byte[0]).name)

    def _receive(self, name):
        now = time.monotonic()
        if self.signal and now - self._first < _SAME_REQUEST_SECONDS:
            return
        if self.signal:
            self._tell(f"\nlockstep: a second signal ({name}): stopping at once\n"
                       "  fix: run the same command again; it goes on from the last checkpoint\n")
            self._leave()
        self.signal, self._first = name, now
        threading.Thread(target=self._end_for_it, daemon=True, name="patience").start()
        self._tell(f"\nlockstep: {name}: saving, then stopping\n")

    def _end_for_it(self):
        """Ends the process where nothing would be lost, if the main thread doesn't end it soon."""
        time.sleep(_PATIENCE_SECONDS)
        with self._section_changes:
            self._section_changes.wait_for(lambda: self._section)
            doing, wait_until_finished = self._section
            if wait_until_finished():
                self._tell(f"lockstep: asked to stop ({self.signal}) while {doing}; nothing was left to save\n"
                           "  fix: run the same command again; it goes on from there\n")
                self._leave()

    def _tell(self, words):
        """Writes past Python's buffers, for the main thread may be in the middle of a line; to nobody, if need be."""
        with contextlib.suppress(OSError):
            os.write(self._stderr, words.encode())

    @staticmethod
    def _leave():
        with contextlib.suppress(OSError):
            if os.isatty(1):
                os.write(1, b"\x1b[?25h")  # the progress line hides the cursor
        os._exit(75)
