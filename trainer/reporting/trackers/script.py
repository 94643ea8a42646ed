"""The process of a tracker: tells it of a run, from the run's own files, as far as checkpoints cover them.

A step is told once a checkpoint of it is on the disk, and only if the tracker doesn't have it: a run that was killed
repeats the steps after its last checkpoint, and none of them was told. What can't be told is told with the next save,
or by the run's next start: metrics.jsonl keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.process.libraries.companion import messages, reply
from trainer.reporting.trackers.lines import MetricsLines, result_of, settings_of
from trainer.reporting.trackers.tracker import TrackedRun, Tracker
from trainer.storage import durable

_PATIENCE_SECONDS = 120.0  # for what is under way, after the run's process has ended
_OF_THE_START = {"wall_seconds", "images_per_second"}  # of a result: other in each start
_FILES = ("report.html", "curves.png")
_SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")


class Follower:
    """Tells a tracker of a run.

    Args:
        name: The tracker: a module of clients/.
        folder: The run's folder.
        continues: Whether the run goes on from a checkpoint; else its folder may hold another run's record.
    """

    def __init__(self, name: str, folder: Path, continues: bool) -> None:
        self._name, self._folder = name, folder
        self._record_path = folder / "trackers" / f"{name}.json"
        record = _read(self._record_path)
        through = record.get("through", -1)
        self._id: str | None = record.get("id") if continues or through < 0 else None
        self._through: int = through if self._id else -1
        self._lines = MetricsLines(folder / "metrics.jsonl")
        self._tracker: Tracker | None = None
        self._asked = self._blind = False  # whether it is known what the tracker has; whether it can't tell
        self._warned = False
        self._result: str | None = record.get("result") if self._id else None

    def covered(self, size: int, through: int) -> None:
        """Tells the steps that a checkpoint covers.

        Args:
            size: Of metrics.jsonl, in bytes.
            through: The last step to tell.
        """
        tracker = self._connected()
        self._lines.read(size)
        if not self._asked:
            has = tracker.last_step()
            self._blind = has is None
            self._through = self._through if has is None else has
            self._asked = True
        points = self._lines.take(self._through, through)
        if not points:
            return
        if self._blind:  # rather a step that is missing after a power cut than one that stands twice
            self._keep(through=points[-1].step)
        try:
            tracker.log(points)
        except Exception:
            self._lines.put_back(points)
            self._asked = False  # it may have taken some of them
            raise
        self._keep(through=points[-1].step)

    def result(self) -> None:
        """Tells what came out."""
        result = json.loads((self._folder / "result.json").read_text())
        report = self._folder / "report"
        files = [path for name in _FILES if (path := report / name).exists()]
        numbers, words = result_of(result)
        lasting = {name: value for name, value in numbers.items() if name not in _OF_THE_START}
        digest = hashlib.sha256(json.dumps([lasting, words], sort_keys=True).encode()).hexdigest()
        if digest != self._result:  # the same command again, after the end, has the same result
            self._connected().result(numbers, words, result["step"], files)
            self._result = digest
            self._keep(self._through)

    def close(self, code: int | None) -> None:
        """Ends the run in the tracker."""
        if self._tracker:
            self._tracker.close(code)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """For a block that the world may make fail; says so once, and again when it works again."""
        try:
            yield
        except (Exception, SystemExit) as error:  # each client has its own, and all of them end no training
            if not self._warned:
                self._warned = True
                reply(warning=f"--trackers={self._name} fails: {_reason(error)}; {self._hint()}. The training goes on, "
                      "and what is missing is told with a later save, or when the same command is run again")
        else:
            if self._warned:
                self._warned = False
                reply(said=f"--trackers={self._name} works again, and has what was missing")

    def _connected(self) -> Tracker:
        """The tracker; this connects where nothing did yet."""
        if self._tracker:
            return self._tracker
        config = json.loads((self._folder / "config.json").read_text())
        run = TrackedRun(self._folder.resolve().name, self._folder, settings_of(config), self._id)
        tracker: Tracker = self._module().connect(run)
        if self._id and tracker.id != self._id:
            self._through, self._result = -1, None  # another place, which has nothing yet
        self._tracker, self._id = tracker, tracker.id
        self._keep(self._through)
        reply(said=f"{self._name}: {_scrubbed(tracker.place)}")
        return tracker

    def _keep(self, through: int) -> None:
        self._through = through
        self._record_path.parent.mkdir(exist_ok=True)
        record = {"id": self._id, "place": _scrubbed(self._tracker.place if self._tracker else ""), "through": through,
                  "result": self._result}
        durable.write_durably(self._record_path, json.dumps(record, indent=2))

    def _module(self) -> Any:
        return importlib.import_module(f"trainer.reporting.trackers.clients.{self._name}")

    def _hint(self) -> str:
        return self._module().HINT


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(path.read_text())
        return value if isinstance(value, dict) else {}
    return {}


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {_scrubbed(lines[0])[:300]}" if lines else type(error).__name__


def _scrubbed(text: str) -> str:
    """A text without passwords in URLs, and without what variables named so hold."""
    for name, value in os.environ.items():
        if _SECRET.search(name.upper()) and len(value) >= 4:
            text = text.replace(value, "…")
    return re.sub(r"://[^/\s@]+@", "://…@", text)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits for the process of an earlier start, which may still be telling."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "a") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Hears the tracker and the folder, then sizes, the result and the end."""
    received = messages(_PATIENCE_SECONDS)
    task = next(received, None)
    if not task:
        return
    name, folder = task["tracker"], Path(task["folder"])
    with _alone(folder / "trackers" / f".{name}.lock"):
        follower, code = Follower(name, folder, task["continues"]), None
        with follower.attempt():
            follower.covered(task["size"], task["through"])
        for message in received:
            code = message.get("code", code)
            with follower.attempt():
                if "size" in message:
                    follower.covered(message["size"], message["through"])
                if message.get("result"):
                    follower.result()
        with follower.attempt():
            follower.close(code)
    sys.stdout.flush()
    os._exit(0)  # a client's own threads may wait for a server


if __name__ == "__main__":
    main()
