"""A TensorFlow profile of some steps, in TensorBoard's folder (`--profile_steps`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.reporting.console import Console


class StepProfile:
    """Profiles steps, whole calls of the device loop, on the chief. What fails is a warning: no run ends for it.

    A call that compiles is not profiled: it would show little else.

    Args:
        steps: The first and the last step; None for no profile.
        folder: The run's `tensorboard/`; None on workers that aren't the chief.
        console: Says where the profile is.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path | None, console: Console) -> None:
        self._first, self._last = steps or (0, 0)
        self._folder, self._console = folder, console
        self._is_active = False

    def limit(self, step: int, num_steps: int) -> int:
        """So many of the next steps that a call ends before the first profiled one, and with the last.

        Args:
            step: Steps done.
            num_steps: Steps that the next call would take.
        """
        ends = [end - step for end in (self._first - 1, self._last) if end > step]
        return min([num_steps, *ends])

    @contextlib.contextmanager
    def around(self, step: int, num_steps: int) -> Iterator[None]:
        """Around a call of the device loop.

        Args:
            step: Steps done before it.
            num_steps: Its steps.
        """
        if self._folder and not self._is_active and self._first <= step + 1 <= self._last:
            with self._warning():
                tf.profiler.experimental.start(str(self._folder))
                self._is_active = True
        yield
        if self._is_active and step + num_steps >= self._last:
            self._is_active = False
            with self._warning():
                tf.profiler.experimental.stop()
                self._console.say(f"the profile of steps up to {self._last:,} is in "
                                  f"{self._folder}/plugins/profile; TensorBoard shows it once "
                                  "tensorboard-plugin-profile is installed")

    def close(self) -> None:
        """Ends a profile that is under way, without writing it."""
        if self._is_active:
            self._is_active = False
            with contextlib.suppress(Exception):
                tf.profiler.experimental.stop(save=False)

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the training goes on
            self._first = self._last = 0
            self._console.warn(f"--profile_steps: there is no profile ({type(error).__name__}: {error})")
