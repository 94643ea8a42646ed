"""SIGTERM, SIGUSR1 and Ctrl-C as a wish that the loop looks for, not as the end of the process."""

import os
import signal
import sys

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopWish:
    """While it is entered, the first signal is remembered and the second ends the process at once.

    Attributes:
        signal: The name of the signal that came, or None.
    """

    def __init__(self):
        self.signal = None
        self._before = {}

    def __enter__(self):
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.listen()
        return self

    def listen(self):
        """Listens (again): TensorFlow puts a handler of its own over SIGTERM when several workers start."""
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, _):
        name = signal.Signals(number).name
        if self.signal:
            # Written past Python's buffers: one of them may be in the middle of a line.
            os.write(2, f"\nlockstep: a second signal ({name}): stopping at once\n"
                        "  way out: run the same command again; it goes on from the last checkpoint\n".encode())
            os._exit(75)
        self.signal = name
        os.write(2, f"\nlockstep: {name}: saving, then stopping\n".encode())
        sys.stderr.flush()
