"""Ctrl-C, or an event of the caller's, as a request that the loop asks for; no other signal is touched."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from trainer.process.exit import tell
from trainer.process.signals import SAME_REQUEST_SECONDS, StopRequest


class GuestStop(StopRequest):
    """While it is entered in the main thread, the first Ctrl-C is a request, and a second one KeyboardInterrupt.

    In another thread, and where Ctrl-C is ignored or ends the process, there is no handler. A Ctrl-C that came too
    late to stop anything is passed on at the end to the handler that was there before, so that it isn't lost.

    Args:
        event: Another thread's request, once it is set; None for none.
    """

    owns_process = False

    def __init__(self, event: threading.Event | None = None) -> None:
        self._event = event
        self._interrupted: float | None = None  # when, by the monotonic clock
        self._handler_before: Callable[[int, FrameType | None], Any] | None = None

    @property
    def signal(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]  it is only read
        """What asks for the stop, as a user reads it, or None."""
        if self._interrupted is not None:
            return "Ctrl-C"
        return "its event is set" if self._event and self._event.is_set() else None

    def __enter__(self) -> GuestStop:
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            signal.signal(signal.SIGINT, self._interrupt)
            self._handler_before = handler
        return self

    def __exit__(self, kind: type[BaseException] | None = None, error: BaseException | None = None,
                 traceback: TracebackType | None = None) -> None:
        before, self._handler_before = self._handler_before, None
        if before is None:
            return
        if signal.getsignal(signal.SIGINT) == self._interrupt:  # else it is somebody else's by now
            signal.signal(signal.SIGINT, before)
        if self._interrupted is not None and error is None:
            before(signal.SIGINT, None)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT; Python calls it in the main thread, between calls of native code."""
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
            with contextlib.suppress(RuntimeError):  # the main thread was inside a print
                tell("\nlockstep: Ctrl-C: saving, then stopping; again: stopping at once")
        elif now - self._interrupted > SAME_REQUEST_SECONDS and self._handler_before:
            self._handler_before(number, frame)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Does nothing: only several workers need it, and they are processes of their own."""
        yield

    @contextlib.contextmanager
    def nothing_to_save(self, doing: str, wait_until_finished: Callable[[], bool] = bool) -> Iterator[None]:
        """Does nothing: a request ends no process here, and the loop finds it after the block.

        Args:
            doing, wait_until_finished: As `StopRequest` takes them.
        """
        yield
