"""Tells somebody how a run ended: done, failed, stopped, or killed without a word.

A process waits beside the run, with the address and the words for the case that the run is killed. So the end of a run
needs no time for imports, and out of memory is told, too. The run's end waits five seconds for it and no longer.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trainer.errors import LockstepError, Stopped, translate
from trainer.process.exit import tell
from trainer.process.libraries.companion import Companion

if TYPE_CHECKING:
    from trainer.config import Config

_PATIENCE_SECONDS = 5.0
_FIGURES = ("step", "eval_accuracy", "test_accuracy", "wall_seconds")
_MOST_LETTERS = 1500  # Discord takes 2,000


class Notifier:
    """While it is entered, the end of the block is told to `--notify`; without the flag it does nothing.

    Args:
        config: The run's settings.
        is_on: Whether this process is the one that tells: the chief's, and not of a dry run.
    """

    def __init__(self, config: Config, is_on: bool) -> None:
        self._config = config
        self._result: Mapping[str, Any] | None = None
        self._companion: Companion | None = None
        if config.notify and is_on:
            last_words = self._message("died", "was killed, or ended at once, without a word", None)
            self._companion = Companion("trainer.reporting.notifications.script",
                                        {"address": config.notify, "last_words": last_words}, _warn)

    def __enter__(self) -> Notifier:
        return self

    def note_result(self, result: Mapping[str, Any] | None) -> None:
        """Keeps what result.json holds, for the message."""
        self._result = result

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._companion:
            failure = translate(error) if error else None
            if error is None:
                message = self._message("done", _result_words(self._result), 0)
            elif isinstance(failure, Stopped):
                message = self._message("stopped", str(failure), failure.code)
            elif isinstance(failure, LockstepError):
                message = self._message("failed", str(failure), failure.code)
            else:
                message = self._message("failed", type(error).__name__, 1)
            self._companion.tell(**message)
            if not self._companion.finish(_PATIENCE_SECONDS):
                tell("lockstep: warning: --notify takes longer than five seconds; it goes on by itself")

    def _message(self, event: str, words: str, code: int | None) -> dict[str, Any]:
        """What is delivered; a JSON object."""
        run, host = self._config.model_dir, socket.gethostname()
        title = {"done": "is done", "failed": "failed", "stopped": "stopped", "died": "died"}[event]
        result, text = self._result or {}, f"{run} on {host}: {words}"[:_MOST_LETTERS]
        return {"event": event, "title": f"Lockstep: {run} {title}", "text": text, "model_dir": run, "host": host,
                "code": code, **{name: result[name] for name in _FIGURES if result.get(name) is not None}}


def _result_words(result: Mapping[str, Any] | None) -> str:
    if not result:
        return "done"
    name, accuracy = ("test", result["test_accuracy"]) if result["test_accuracy"] is not None else (
        result["eval_split"], result["eval_accuracy"])
    return (f"done: {name} accuracy {accuracy:.2%} after {result['step']:,} steps, {result['wall_seconds']:.0f} s"
            + (f"; {result['ended_early']}" if result["ended_early"] else ""))


def _warn(answer: Mapping[str, Any]) -> None:
    tell(f"lockstep: warning: {answer.get('warning')}")
