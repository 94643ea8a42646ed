"""Starts the workers of a job, watches them, ends them together, and starts them again.

    for each start
        an agent a worker: where is a free port?
        TF_CONFIG for each; all start
        until all have ended:  the chief's progress on the terminal, warnings of all
            one failed?        the others get seconds to end by themselves, then SIGTERM, SIGABRT, SIGKILL
        the first cause decides: by its exit code the job starts again, or the launcher ends with that code
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch import gpus
from launch.workers.child_process import raise_file_limit
from launch.workers.exit_cause import ExitCause, find_exit_cause
from launch.workers.worker import Events, Worker
from trainer.config import Config
from trainer.distributed.wire import TOKEN, join_address
from trainer.errors import BusyError, DeviceError, Stopped, WorkerError, first_few
from trainer.process.exit import say, tell
from trainer.process.signals import StopRequest
from trainer.storage.folder_lock import FolderLock

_PORT_SECONDS = 60.0  # for the agents to come up and find ports
_BUSY_SECONDS = 15.0  # for a port that was asked for to become free
# Seconds after the first failure, and the signal that is then sent: the job ends within 30 s. SIGABRT lets a worker
# show its stacks; None: a worker that is still there isn't waited for.
_END_PLAN = ((5.0, "SIGTERM"), (12.0, "SIGABRT"), (18.0, "SIGKILL"), (23.0, None))
# The same after a request to stop, counted anew when a worker says that it still trains or saves: 45 s from then on.
_STOP_PLAN = ((20.0, "SIGABRT"), (27.0, "SIGKILL"), (32.0, None))
_BACK_OFF_SECONDS, _LONGEST_BACK_OFF = 1.0, 60.0
_TICK_SECONDS = 0.25
_LEFT_BEHIND = b"\r\x1b[K\x1b[?25h"  # takes away the progress line of a chief that was killed, and shows the cursor


@dataclasses.dataclass(frozen=True)
class WorkerSpec:
    """Where and how a worker runs.

    Args:
        host: The machine's name or address, as the other workers reach it.
        label: The machine as a user reads it.
        agent: The command that starts an agent on the machine.
        environment: The variables that the worker gets in addition to TF_CONFIG.
        folder: Where the worker is started; None for the agent's own folder.
        port: On which the worker listens; 0 for any that is free.
        cpus: The cores that the worker may use; empty for all.
        here: Whether the machine is this one.
    """

    host: str
    label: str
    agent: tuple[str, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    folder: str | None = None
    port: int = 0
    cpus: tuple[int, ...] = ()
    here: bool = True


def supervise(specs: Sequence[WorkerSpec], arguments: Sequence[str], config: Config, max_restarts: int) -> None:
    """Runs a job to its end; SIGTERM, SIGHUP and Ctrl-C ask all workers to save and to stop.

    Args:
        specs: A `WorkerSpec` for each worker, the chief's first.
        arguments: The trainer's.
        config: The trainer's settings that the arguments make.
        max_restarts: How often the job is started again.

    Raises:
        LockstepError: if it didn't end well.
    """
    # On a restart the folder exists, so --resume=never must become auto.
    again = [*arguments, "--resume=auto"] if config.resume == "never" else arguments
    with StopRequest(exits_process=True) as stop:
        Supervisor(specs, arguments, Path(config.model_dir).expanduser(), max_restarts, stop, again).run()


class Supervisor:
    """Runs the loop at the top of this module.

    Args:
        specs: A `WorkerSpec` for each worker, the chief's first.
        arguments: The trainer's.
        model_dir: The run's folder; logs go into its `workers/`.
        max_restarts: How often the job is started again.
        stop: The request to stop.
        arguments_again: The trainer's from the second start on; None for the same.
    """

    def __init__(self, specs: Sequence[WorkerSpec], arguments: Sequence[str], model_dir: Path, max_restarts: int,
                 stop: StopRequest, arguments_again: Sequence[str] | None = None) -> None:
        self._specs, self._arguments, self._max_restarts, self._stop_request = specs, arguments, max_restarts, stop
        self._arguments_again = arguments if arguments_again is None else arguments_again
        self._logs = model_dir / "workers"
        # On a terminal the chief draws its progress itself, if it is on this machine.
        self._terminal = os.dup(sys.stdout.fileno()) if sys.stdout.isatty() and specs[0].here else None

    def run(self) -> None:
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

    def _run(self) -> None:
        for restarts in range(self._max_restarts + 1):
            cause = self._run_once(self._arguments_again if restarts else self._arguments)
            if cause.code == 0:
                return
            left = self._max_restarts - restarts
            if self._stop_request.signal or not cause.starts_again(restarts) or not left:
                raise cause.as_error(restarts, self._stop_request.signal)
            seconds = min(_BACK_OFF_SECONDS * 2**restarts, _LONGEST_BACK_OFF)
            tell("\n".join(cause.lines))
            tell(f"lockstep: all workers start again in {seconds:.0f} s, from the last checkpoint "
                 f"(restart {restarts + 1} of {self._max_restarts})")
            until = time.monotonic() + seconds
            while time.monotonic() < until and not self._stop_request.signal:
                time.sleep(_TICK_SECONDS)
            if cause.code == DeviceError.code and (missing := self._missing_gpus()):
                raise DeviceError(f"a device was lost, and GPU {', '.join(missing)} of this machine is not there again",
                                  "check the machine (nvidia-smi, dmesg), then run the same command again; it goes on "
                                  "from the last checkpoint")

    def _missing_gpus(self) -> list[str]:
        """The GPUs of this machine that a worker was given, and that nvidia-smi doesn't list any more."""
        given = {name for spec in self._specs if spec.here
                 for name in spec.environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name}
        return gpus.lost(given) if given else []

    def _run_once(self, arguments: Sequence[str]) -> ExitCause:
        """Starts all workers once, waits for their ends, and returns the first cause."""
        events: Events = queue.Queue()
        workers = [Worker(rank, spec.label, spec.agent, self._logs / f"{rank}.log", events,
                          None if rank else self._terminal) for rank, spec in enumerate(self._specs)]
        try:
            ports = self._find_ports(workers, events)
            if isinstance(ports, ExitCause):
                return ports
            self._start(workers, ports, arguments)
            self._watch(workers, events)
            if self._terminal is not None and any(worker.code for worker in workers):
                os.write(self._terminal, _LEFT_BEHIND)
            return find_exit_cause(workers, self._logs, _END_PLAN[0][0])
        finally:
            for worker in workers:
                worker.leave()
            for worker in workers:
                worker.close()

    def _find_ports(self, workers: Sequence[Worker], events: Events) -> dict[int, int] | ExitCause:
        """A port for each worker, by its rank; or an `ExitCause` if an agent was lost on the way."""
        for worker, spec in zip(workers, self._specs, strict=True):
            worker.send(port=spec.port)
        ports: dict[int, int] = {}
        deadline = time.monotonic() + _PORT_SECONDS
        while len(ports) < len(workers):
            with contextlib.suppress(queue.Empty):
                worker, name, value = events.get(timeout=_TICK_SECONDS)
                if name == "ended":
                    return find_exit_cause(workers, self._logs, _END_PLAN[0][0])
                if name == "port" and value["port"]:
                    ports[worker.rank] = value["port"]
                elif name == "port" and time.monotonic() < deadline - _PORT_SECONDS + _BUSY_SECONDS:
                    worker.send(port=self._specs[worker.rank].port)  # an earlier job may be about to leave the port
                    time.sleep(_TICK_SECONDS)
                elif name == "port":
                    raise BusyError(f"port {self._specs[worker.rank].port} of {worker.label} is not available: "
                                    f"{value['why']}", "end what uses it, or use another --port")
            if self._stop_request.signal:
                raise Stopped(f"asked to stop ({self._stop_request.signal}) before the workers had started",
                              "run the same command again")
            if time.monotonic() > deadline:
                missing = [worker.label for worker in workers if worker.rank not in ports]
                return ExitCause(WorkerError.code, (
                    f"lockstep: no answer within {_PORT_SECONDS:.0f} s from {first_few(missing)}",
                    "  fix: check whether a worker can be started there"))
        return ports

    def _start(self, workers: Sequence[Worker], ports: Mapping[int, int], arguments: Sequence[str]) -> None:
        addresses = [join_address(spec.host, ports[rank]) for rank, spec in enumerate(self._specs)]
        token = secrets.token_hex(32)  # another one for each start: a line of an earlier one is worth nothing
        for worker, spec in zip(workers, self._specs, strict=True):
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker.rank}}
            environment = {**spec.environment, TOKEN: token, "TF_CONFIG": json.dumps(cluster)}
            worker.start(words=arguments, env=environment, cwd=spec.folder, cpus=spec.cpus,
                         out=None if worker.rank else self._terminal)

    def _watch(self, workers: Sequence[Worker], events: Events) -> None:
        """Waits until all workers have ended and everything that they printed is shown; ends those that don't."""
        plan: list[tuple[float, str | None]] = list(_END_PLAN)
        since: float | None = None  # from when on the plan's seconds count
        extends = False  # whether what workers say starts the seconds anew: only after a request to stop
        running, asked, failed = len(workers), False, False
        while running:
            with contextlib.suppress(queue.Empty):
                worker, name, value = events.get(timeout=_TICK_SECONDS)
                running -= name == "ended"
                if name == "ended" and value and not failed:
                    failed, since = True, since if asked else worker.ended_at
                elif not failed:
                    self._show(worker, name, value)
                if name == "news" and extends and len(plan) == len(_STOP_PLAN):
                    since = time.monotonic()  # a worker's step or save goes on
            if self._stop_request.signal and not asked:
                asked = True
                if not failed:
                    plan = list(_STOP_PLAN)
                    since, extends = time.monotonic(), True
                for worker in workers:
                    worker.send(signal="SIGTERM")
            if since is not None and plan and time.monotonic() - since > plan[0][0]:
                order = plan.pop(0)[1]
                for worker in workers:
                    if worker.code is None and order:
                        worker.send(signal=order)
                    elif worker.code is None:
                        worker.give_up()

    def _show(self, worker: Worker, name: str, value: str) -> None:
        """Shows the chief's output, and the news of all workers."""
        if name == "out" and worker.rank == 0:
            with contextlib.suppress(OSError):  # stdout's reader has left; the job needs no reader
                say(value)
        elif name == "news" and not self._stop_request.signal:  # after a request, the news are about the request
            tell(value if worker.rank == 0 else f"[worker {worker.rank}] {value}")
