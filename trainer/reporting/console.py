"""What a run prints on the terminal, and writes into log.txt."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console as RichConsole

from trainer.process.exit import printable, tell
from trainer.reporting.panel import TrainingPanel

_PLAIN_EVERY_SECONDS = 5.0


class Console:
    """A panel while a run trains, and sentences above it. Plain lines where there is no terminal.

    Args:
        log: Path of log.txt; None on workers that aren't the chief, which write none.
        quiet: Whether nothing is printed on the terminal.
        owns_stdout: Whether standard output is this program's: then what other code prints goes nowhere, too, once
            its reader has left.
    """

    def __init__(self, log: Path | str | None = None, quiet: bool = False, owns_stdout: bool = True) -> None:
        self._log = open(log, "a", encoding="utf-8") if log else None  # noqa: SIM115  closed by `close`
        stdout = cast("IO[str]", _Stdout()) if sys.stdout else None
        # A notebook's stream calls itself a terminal, and shows what moves a cursor; rich would make HTML of lines.
        is_replaced = not owns_stdout and sys.stdout is not sys.__stdout__
        self._rich = _Terminal(file=stdout, highlight=False, emoji=False, quiet=quiet, soft_wrap=True,
                               force_jupyter=False, force_terminal=False if is_replaced else None)
        self._rich.owns_stdout = owns_stdout
        self._panel: TrainingPanel | None = None
        self._last_plain = 0.0

    def say(self, sentence: str) -> None:
        """Prints a line and logs it with the time."""
        self._rich.print(printable(sentence), markup=False)
        self._write(sentence)

    def warn(self, sentence: str) -> None:
        """Prints a line on stderr, marked as a warning, and logs it with the time."""
        tell(f"lockstep: warning: {sentence}")
        if self._panel:
            self._panel.warned(sentence)
        self._write(f"warning: {sentence}")

    def start(self, step: int, total: int, *, name: str, best: dict[str, Any] | None, evaluated: str) -> None:
        """Starts the panel, on a terminal.

        Args:
            step, total: Steps done and in all.
            name: The run's name.
            best: The best evaluation so far: step, accuracy; None before the first.
            evaluated: The name of the evaluated split.
        """
        if self._rich.is_terminal and not self._rich.quiet:
            self._panel = TrainingPanel(self._rich, name, step, total, best, evaluated)
            self._panel.start()

    def progress(self, step: int, total: int, *, epoch: float, images_per_second: float | None, loss: float | None,
                 accuracy: float | None, seconds_left: float | None) -> None:
        """Shows what was trained; without a terminal every five seconds.

        Args:
            step, total: Steps done and in all.
            epoch: Epochs done.
            images_per_second: Training speed, or None if it isn't known yet.
            loss, accuracy: Of the steps just done, or None.
            seconds_left: Of the whole run, evaluations included; None if it isn't known yet.
        """
        figures = [f"epoch {epoch:.2f}"]
        figures += [f"loss {loss:.4f}"] if loss is not None else []
        figures += [f"accuracy {accuracy:.1%}"] if accuracy is not None else []
        figures += [f"{images_per_second:,.0f} images/s"] if images_per_second else []
        if self._panel:
            self._panel.progress(step, "  ".join(figures), "" if seconds_left is None else _clock(seconds_left))
        elif time.monotonic() - self._last_plain > _PLAIN_EVERY_SECONDS:
            self._last_plain = time.monotonic()
            left = f"  {_clock(seconds_left)} left" if seconds_left is not None else ""
            self.say(f"step {step:,}/{total:,}  {'  '.join(figures)}{left}")

    def evaluated(self, step: int, accuracy: float, is_best: bool) -> None:
        """Shows an evaluation in the panel, as `TrainingPanel.evaluated` does."""
        if self._panel:
            self._panel.evaluated(step, accuracy, is_best)

    def saved(self, step: int) -> None:
        """Shows in the panel that the state of a step is on the disk."""
        if self._panel:
            self._panel.saved(step)

    def stop(self) -> None:
        """Removes the panel."""
        if self._panel:
            self._panel.stop()
            self._panel = None

    def close(self) -> None:
        """Ends all output."""
        self.stop()
        if self._log:
            self._log.close()

    def _write(self, sentence: str) -> None:
        if self._log:
            self._log.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')}  {printable(sentence)}\n")
            self._log.flush()


class _Stdout:
    """Standard output, where a terminal that is gone is what a pipe without a reader is.

    What its encoding lacks is escaped, also where the stream is another program's and raises an error for it.
    """

    def __init__(self) -> None:
        self._stream = sys.stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _gone_is_broken():
            try:
                return self._stream.write(text)
            except UnicodeEncodeError as error:
                return self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def flush(self) -> None:
        with _gone_is_broken():
            self._stream.flush()


@contextlib.contextmanager
def _gone_is_broken() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:  # what the system answers once the other end of a terminal is closed
            raise BrokenPipeError from None
        raise


class _Terminal(RichConsole):
    """A terminal, or a pipe whose reader may leave (`| head`): then training goes on in silence."""

    owns_stdout = True

    def on_broken_pipe(self) -> None:
        self.quiet = True
        if self.owns_stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _clock(seconds: float) -> str:
    """Such as 1:02:03."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
