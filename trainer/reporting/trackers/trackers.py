"""The run's side of its trackers: a process for each, which is told what checkpoints cover, and never waited for.

Only at the end of a run that went well the trackers have a minute, for files that they upload.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trainer.errors import UsageError, translate
from trainer.process.libraries.companion import Companion

if TYPE_CHECKING:
    from trainer.process.signals import StopRequest
    from trainer.process.watchdog import Watchdog
    from trainer.reporting.console import Console
    from trainer.storage.model_dir import ModelDir

_AT_END_SECONDS = 60.0
_AT_STOP_SECONDS = 5.0
_TICK_SECONDS = 0.1


def require_installed(names: Sequence[str]) -> None:
    """Checks that the trackers' clients can be imported, before the training.

    Args:
        names: `--trackers`.

    Raises:
        UsageError: naming all that can't.
    """
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        raise UsageError([f"--trackers={name} needs the package {name}, which is not installed" for name in missing],
                         f"pip install 'lockstep-trainer[{','.join(missing)}]'")


def _is_installed(name: str) -> bool:
    """Whether there is a package; a folder wandb/ of runs, or mlflow/, looks like one without a file of its own."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


class Trackers:
    """Starts the processes. While it is entered, the end of the block ends the run in the trackers.

    Args:
        names: The trackers; () for none, as on workers that aren't the chief.
        model_dir: The run's folder.
        console: Prints where the run can be seen, and warnings.
        stop: A signal cuts the wait at the end short.
        watchdog: Is told that the wait is no standstill.
        size: How many bytes of metrics.jsonl the checkpoint covers from which the run goes on; None for a new run.
        through: The last step to tell at first.
    """

    def __init__(self, names: Sequence[str], model_dir: ModelDir, console: Console, *, stop: StopRequest,
                 watchdog: Watchdog, size: int | None = None, through: int = -1) -> None:
        self._console, self._stop, self._watchdog = console, stop, watchdog
        self._failing: set[str] = set()
        self._companions = {name: Companion("trainer.reporting.trackers.script", {
            "tracker": name, "folder": str(model_dir.root), "continues": size is not None, "size": size or 0,
            "through": through}, functools.partial(self._hear, name)) for name in names}

    def covered(self, step: int, metadata: Mapping[str, Any]) -> None:
        """Notes that a checkpoint is on the disk.

        Args:
            step: Its step.
            metadata: As in `checkpoint_metadata`. What is evaluated at its step may still come, if nothing was.
        """
        through = step if metadata.get("evaluation") else step - 1
        for companion in self._companions.values():
            companion.tell(size=metadata["reports"]["metrics"], through=through)

    def result(self, step: int, size: int) -> None:
        """Notes that result.json and the report are written.

        Args:
            step: The last step.
            size: Of metrics.jsonl, in bytes.
        """
        for companion in self._companions.values():
            companion.tell(size=size, through=step, result=True)

    def close(self) -> None:
        """Ends what is left of the processes' input; waits for nothing."""
        for companion in self._companions.values():
            companion.finish(0.0)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        failure = translate(error) if error else None
        for companion in self._companions.values():
            companion.tell(code=failure.code if failure else 1 if error else 0)
        began = time.monotonic()
        for name, companion in self._companions.items():
            while not companion.finish(_TICK_SECONDS):
                self._watchdog.reset("telling the trackers")
                hurries = error or self._stop.signal or name in self._failing
                patience = _AT_STOP_SECONDS if hurries else _AT_END_SECONDS
                if time.monotonic() - began > patience:
                    self._console.warn(f"--trackers={name} has not taken everything within {patience:.0f} s; it goes "
                                       "on by itself, and what it misses is told when the same command is run again")
                    break

    def _hear(self, name: str, answer: Mapping[str, Any]) -> None:
        if "warning" in answer:
            self._failing.add(name)
            warning = str(answer["warning"])
            self._console.warn(warning if warning.startswith("--") else f"--trackers={name}: {warning}")
        elif "said" in answer:
            self._failing.discard(name)
            self._console.say(str(answer["said"]))
