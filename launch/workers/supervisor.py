"""Starts the workers of a job, watches them, ends them together, and starts them again.

    for each start
        an agent a worker: where is a free port?
        TF_CONFIG for each; all start
        until all have ended:  the chief's progress on the terminal, warnings of all
            one failed?        the others get seconds to end by themselves, then SIGTERM, SIGABRT, SIGKILL
        the first cause decides: by its exit code the job starts again, or the launcher ends with that code
"""

import contextlib
import dataclasses
import json
import os
import queue
import sys
import time

from launch.workers.child_process import raise_file_limit
from launch.workers.exit_cause import Verdict, judge
from launch.workers.worker import Worker
from trainer.errors import BusyError, Stopped, WorkerError
from trainer.process.exit import say, tell
from trainer.storage.folder_lock import FolderLock

_PORT_SECONDS = 60.0  # for the agents to come up and find ports
_BUSY_SECONDS = 15.0  # for a port that was asked for to become free
# After the first failure; all is over within 30 s. SIGABRT lets a worker show its stacks; None: whoever is still there
# isn't waited for.
_END_PLAN = ((5.0, "SIGTERM"), (12.0, "SIGABRT"), (18.0, "SIGKILL"), (23.0, None))
# After a stop was requested, or after a worker last said that it is still at it: the same. All of it is over in 45 s.
_STOP_PLAN = ((20.0, "SIGABRT"), (27.0, "SIGKILL"), (32.0, None))
_BACK_OFF_SECONDS, _LONGEST_BACK_OFF = 1.0, 60.0
_TICK_SECONDS = 0.25
_LEFT_BEHIND = b"\r\x1b[K\x1b[?25h"  # takes away the progress line of a chief that was killed, and shows the cursor


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a worker runs.

    Args:
        host: As the other workers reach it.
        label: For people.
        agent: The words that start an agent there.
        environment: What its worker gets besides TF_CONFIG.
        folder: Where it is started; None for the agent's own.
        port: To use; 0 for any that is free.
        cpus: The cores that its worker may use; none for all.
        here: Whether it is this machine.
    """

    host: str
    label: str
    agent: tuple[str, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    folder: str | None = None
    port: int = 0
    cpus: tuple[int, ...] = ()
    here: bool = True


class Supervisor:
    """See the module.

    Args:
        places: A `Place` for each worker, the chief's first.
        words: The trainer's.
        model_dir: The run's folder, a `Path`; logs go into its `workers/`.
        max_restarts: How often the job is started again.
        stop: A `StopRequest`.
        words_again: The trainer's from the second start on; None for the same.
    """

    def __init__(self, places, words, model_dir, max_restarts, stop, words_again=None):
        self._places, self._words, self._max_restarts, self._wish = places, words, max_restarts, stop
        self._words_again = words if words_again is None else words_again
        self._logs = model_dir / "workers"
        # On a terminal the chief draws its progress itself, if it is on this machine.
        self._terminal = os.dup(sys.stdout.fileno()) if sys.stdout.isatty() and places[0].here else None

    def run(self):
        """Runs the job to its end.

        Raises:
            LockstepError: by the first cause, if it didn't end well.
        """
        raise_file_limit()
        self._logs.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self._logs)
        lock.take()
        try:
            self._run()
        finally:
            lock.give_back()

    def _run(self):
        for restarts in range(self._max_restarts + 1):
            verdict = self._run_once(self._words_again if restarts else self._words)
            if verdict.code == 0:
                return
            left = self._max_restarts - restarts
            if self._wish.signal or not verdict.starts_again(restarts) or not left:
                raise verdict.as_error(restarts, self._wish.signal)
            seconds = min(_BACK_OFF_SECONDS * 2**restarts, _LONGEST_BACK_OFF)
            tell("\n".join(verdict.lines))
            tell(f"lockstep: all workers start again in {seconds:.0f} s, from the last checkpoint ({left} "
                 f"restart{'s' if left > 1 else ''} left)")
            until = time.monotonic() + seconds
            while time.monotonic() < until and not self._wish.signal:
                time.sleep(_TICK_SECONDS)

    def _run_once(self, words):
        """Starts all workers once, and returns the `Verdict`."""
        events = queue.Queue()
        workers = [Worker(number, place.label, place.agent, self._logs / f"{number}.log", events,
                          None if number else self._terminal) for number, place in enumerate(self._places)]
        try:
            ports = self._find_ports(workers, events)
            if isinstance(ports, Verdict):
                return ports
            self._start(workers, ports, words)
            self._watch(workers, events)
            if self._terminal is not None and any(worker.code for worker in workers):
                os.write(self._terminal, _LEFT_BEHIND)
            return judge(workers, self._logs, _END_PLAN[0][0])
        finally:
            for worker in workers:
                worker.leave()
            for worker in workers:
                worker.close()

    def _find_ports(self, workers, events):
        """A port for each worker; or a `Verdict` if an agent was lost on the way."""
        for worker, place in zip(workers, self._places, strict=True):
            worker.send(port=place.port)
        ports, deadline = {}, time.monotonic() + _PORT_SECONDS
        while len(ports) < len(workers):
            with contextlib.suppress(queue.Empty):
                worker, name, value = events.get(timeout=_TICK_SECONDS)
                if name == "ended":
                    return judge(workers, self._logs, _END_PLAN[0][0])
                if name == "port" and value["port"]:
                    ports[worker.number] = value["port"]
                elif name == "port" and time.monotonic() < deadline - _PORT_SECONDS + _BUSY_SECONDS:
                    worker.send(port=self._places[worker.number].port)  # a job before may be about to leave it
                    time.sleep(_TICK_SECONDS)
                elif name == "port":
                    raise BusyError(f"port {self._places[worker.number].port} of {worker.label} is not available: "
                                    f"{value['why']}", "end what uses it, or use another --port")
            if self._wish.signal:
                raise Stopped(f"asked to stop ({self._wish.signal}) before the workers had started",
                              "run the same command again")
            if time.monotonic() > deadline:
                missing = [worker.label for worker in workers if worker.number not in ports]
                return Verdict(WorkerError.code, (
                    f"lockstep: no answer within {_PORT_SECONDS:.0f} s from {', '.join(missing)}",
                    "  fix: check whether a worker can be started there"))
        return ports

    def _start(self, workers, ports, words):
        addresses = [f"{place.host}:{ports[number]}" for number, place in enumerate(self._places)]
        for worker, place in zip(workers, self._places, strict=True):
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker.number}}
            environment = {**place.environment, "TF_CONFIG": json.dumps(cluster)}
            worker.start(words=words, env=environment, cwd=place.folder, cpus=place.cpus,
                         out=None if worker.number else self._terminal)

    def _watch(self, workers, events):
        """Until all have ended, and all that they said is shown."""
        plan, since, running, asked, failed = list(_END_PLAN), None, len(workers), False, False
        while running:
            with contextlib.suppress(queue.Empty):
                worker, name, value = events.get(timeout=_TICK_SECONDS)
                running -= name == "ended"
                if name == "ended" and value and not failed:
                    failed, since = True, since if asked else worker.ended_at
                elif not failed:
                    self._show(worker, name, value)
                if name == "news" and asked and len(plan) == len(_STOP_PLAN):
                    since = time.monotonic()  # a worker's step or save goes on
            if self._wish.signal and not asked:
                asked = True
                if not failed:
                    plan, since = list(_STOP_PLAN), time.monotonic()
                for worker in workers:
                    worker.send(signal="SIGTERM")
            if since is not None and plan and time.monotonic() - since > plan[0][0]:
                order = plan.pop(0)[1]
                for worker in workers:
                    if worker.code is None and order:
                        worker.send(signal=order)
                    elif worker.code is None:
                        worker.give_up()

    def _show(self, worker, name, value):
        if name == "out" and worker.number == 0:
            with contextlib.suppress(OSError):  # whoever read it has left; the job needs no reader
                say(value)
        elif name == "news" and not self._wish.signal:  # what they say to it, they say because they were asked
            tell(value if worker.number == 0 else f"[worker {worker.number}] {value}")
