"""The rendezvous of a job's workers before TensorFlow connects them: all have come, and their fingerprints are equal.

TensorFlow's own servers wait for a missing worker without end and without a message. So the workers meet first, at
the chief's address, by a protocol of one line each way:

    a worker → the chief    "lockstep " and a JSON object: its rank, the number of workers, its fingerprint (as
                            "facts"), its failure
    the chief → a worker    "lockstep " and a JSON array: the objects of all workers; or an object: why there is no job

Where LOCKSTEP_TOKEN is set, lines are signed with it (wire.py), and a line that isn't is not read. Each connection has
seconds to send its line and a limit to its length, and there are few at a time, so that connections of other programs
keep no worker out.

Every worker binds its port before it connects, so a port in use is found at the start. A worker that finds an earlier
job's server at the chief's address tries again until the deadline.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Iterable
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.distributed.consistency import require_equal
from trainer.distributed.wire import LONGEST, TOKEN, bind, line_of, parse, read_line, split_address
from trainer.errors import BusyError, LockstepError, WorkerError, first_few, of_code

if TYPE_CHECKING:
    from trainer.distributed.cluster import Cluster

_LINE_SECONDS = 10.0  # for a connection to send it
_BACKLOG = 512  # connections that the system keeps until they are accepted
_LEAST_PENDING = 32  # connections that have not sent it yet, before the oldest is closed
_TRY_AGAIN_SECONDS = 0.3
_AFTER_FAILURE_SECONDS = 20.0  # that the chief waits for the other workers, so that they hear why there is no job
_GRACE_SECONDS = 5.0  # that the other workers wait longer than the chief, so that they hear its answer

_Message = dict[str, Any]  # what a worker sends


class _Pending(NamedTuple):
    """A connection that has not sent its line yet: until when it may, and what came so far."""

    deadline: float
    line: bytearray


class _Peer(NamedTuple):
    """A worker that has sent its line: the connection, and the line."""

    connection: socket.socket
    line: bytes


def rendezvous(cluster: Cluster, fingerprint: dict[str, Any], failure: LockstepError | None, seconds: float) -> None:
    """Meets the other workers of the job, and ends if one of them can't begin or isn't like the rest.

    Args:
        cluster: The workers of the job.
        fingerprint: What `consistency.fingerprint_of` returned.
        failure: What keeps this worker from beginning, or None.
        seconds: How long to wait for the other workers.

    Raises:
        BusyError: if this worker's port is in use.
        UsageError: if the fingerprints differ.
        WorkerError: if a worker doesn't come, naming it.
        LockstepError: this worker's failure, or one of the type of another worker's.
    """
    server = None
    try:
        server = _bind(cluster)
    except LockstepError as error:
        failure = failure or error
    local = {"worker": cluster.worker, "workers": cluster.workers, "facts": fingerprint,
             "failure": failure and [failure.code, failure.cause, failure.fix]}
    deadline = time.monotonic() + seconds
    try:
        if cluster.worker:
            messages = _ask_chief(cluster, local, deadline + _GRACE_SECONDS)
        elif server:
            messages = _gather(cluster, server, local, deadline)
        else:
            messages = [local]  # without a port; the other workers report that they can't reach the chief
    finally:
        if server:
            server.close()
    if failure:
        raise failure
    for message in messages:
        if message.get("failure"):
            worker, (code, cause, fix) = message["worker"], message["failure"]
            raise of_code(code)(f"worker {worker} ({cluster.addresses[worker]}) can't begin: {cause}", fix)
    require_equal([message["facts"] for message in messages])


def _bind(cluster: Cluster) -> socket.socket:
    """A socket on this worker's port, on all addresses of the machine, as TensorFlow's server will be."""
    host, port = split_address(cluster.addresses[cluster.worker])
    server = None
    try:
        server = bind(port)
        # On every worker: another process may bind a port that is bound, not listening.
        server.listen(max(_BACKLOG, cluster.workers))
        server.setblocking(False)
        return server
    except OSError as error:
        if server:
            server.close()
        raise BusyError(f"worker {cluster.worker} can't have port {port} of {host}: {error.strerror}",
                        "end what uses it, or use another port in TF_CONFIG (under Slurm: LOCKSTEP_PORT)") from None


def _gather(cluster: Cluster, server: socket.socket, local: _Message, deadline: float) -> list[_Message]:
    """The chief's part: collects the messages of all workers, by worker, and sends them to all workers."""
    messages: dict[int, _Message] = {0: local}
    peers: dict[int, _Peer] = {}  # that have sent their message
    pending: dict[socket.socket, _Pending] = {}  # the other connections, the oldest first
    strangers: set[str] = set()  # what connections without this job's token say that they are
    patience = _AFTER_FAILURE_SECONDS
    try:
        while len(messages) < cluster.workers:
            if any(message.get("failure") for message in messages.values()):
                deadline = min(deadline, time.monotonic() + patience)
                patience = math.inf
            left = deadline - time.monotonic()
            if left <= 0 and patience == math.inf:
                break  # there will be no job; the workers that have come are told why
            if left <= 0:
                raise _missing(cluster, messages, strangers)
            for ready in _readable([server, *pending, *(peer.connection for peer in peers.values())], min(left, 1.0)):
                if ready is server:
                    _accept(server, pending)
                elif ready in pending:
                    _receive(ready, pending, messages, peers, strangers, cluster)
                else:
                    _drop(ready, messages, peers)
            _close_old(pending, max(_LEAST_PENDING, 4 * cluster.workers))
        answer = [messages[worker] for worker in sorted(messages)]
        _send(peers.values(), answer)
        return answer
    except WorkerError as error:
        _send(peers.values(), {"failure": [error.code, error.cause, error.fix]})
        raise
    finally:
        for connection in [*(peer.connection for peer in peers.values()), *pending]:
            connection.close()


def _readable(sockets: list[socket.socket], seconds: float) -> list[socket.socket]:
    """Waits until at least one of the sockets can be read, at most so long; returns those that can."""
    return [ready for ready in wait(sockets, seconds) if isinstance(ready, socket.socket)]


def _accept(server: socket.socket, pending: dict[socket.socket, _Pending]) -> None:
    with contextlib.suppress(OSError):  # none is left, or no descriptor
        for _ in range(_LEAST_PENDING):
            connection = server.accept()[0]
            connection.setblocking(False)
            pending[connection] = _Pending(time.monotonic() + _LINE_SECONDS, bytearray())


def _close_old(pending: dict[socket.socket, _Pending], most: int) -> None:
    """Closes connections whose time is over, and the oldest of too many: a worker sends its line at once."""
    now = time.monotonic()
    for index, (connection, waiting) in enumerate(list(pending.items())):
        if now > waiting.deadline or index < len(pending) - most:
            connection.close()
            del pending[connection]


def _receive(connection: socket.socket, pending: dict[socket.socket, _Pending], messages: dict[int, _Message],
             peers: dict[int, _Peer], strangers: set[str], cluster: Cluster) -> None:
    """Takes what a connection sends; one that isn't a worker of this job is closed, and kept in mind if it says so."""
    try:
        data = connection.recv(2**16)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    line = pending[connection].line
    line += data
    if data and not line.endswith(b"\n") and len(line) < LONGEST:
        return
    del pending[connection]
    message = parse(bytes(line))
    if message is None and isinstance(claimed := parse(bytes(line), check=False), dict):
        strangers.add(str(claimed.get("worker"))[:10])
    worker = message.get("worker") if isinstance(message, dict) else None
    if not isinstance(message, dict) or type(worker) is not int or not 0 < worker < cluster.workers \
            or message.get("workers") != cluster.workers or not isinstance(message.get("facts"), dict) \
            or not _is_failure(message.get("failure")):
        connection.close()
        return
    if worker in peers:
        peers[worker].connection.close()  # it was started again
    messages[worker], peers[worker] = message, _Peer(connection, bytes(line))


def _drop(connection: socket.socket, messages: dict[int, _Message], peers: dict[int, _Peer]) -> None:
    """Forgets a worker that can be read after its message: it has ended. It may come again."""
    for worker in [worker for worker, peer in peers.items() if peer.connection is connection]:
        del messages[worker], peers[worker]
    connection.close()


def _send(peers: Iterable[_Peer], answer: list[_Message] | _Message) -> None:
    for peer in peers:
        with contextlib.suppress(OSError):
            peer.connection.settimeout(_GRACE_SECONDS)
            peer.connection.sendall(line_of(answer, peer.line))


def _ask_chief(cluster: Cluster, local: _Message, deadline: float) -> list[_Message]:
    """The part of the other workers: sends this worker's message until the chief answers."""
    address, problem, line = cluster.addresses[0], "nothing answered", line_of(local)
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(split_address(address), timeout=min(left, 10.0)) as chief:
                chief.sendall(line)
                chief.settimeout(max(0.1, deadline - time.monotonic()))
                answer = parse(read_line(chief, LONGEST * cluster.workers), line)
            problem = f"it closed the connection, as it does on another {TOKEN} or another number of workers"
        except OSError as error:
            problem = f"{error.strerror or error}"
            answer = None
        if isinstance(answer, list):
            return answer
        if isinstance(answer, dict) and answer.get("failure") and _is_failure(answer["failure"]):
            code, cause, fix = answer["failure"]
            raise of_code(code)(cause, fix)
        time.sleep(min(_TRY_AGAIN_SECONDS, max(0.0, deadline - time.monotonic())))
    raise WorkerError(f"worker 0, the chief, can't be reached at {address}: {problem}",
                      f"check whether it was started, whether the network lets its port through, and whether all "
                      f"workers have the same {TOKEN} and TF_CONFIG")


def _is_failure(value: Any) -> bool:
    """Whether a value from another process is None or a list of an exit code, a cause and a fix."""
    codes = {kind.code for kind in LockstepError.__subclasses__()}
    return value is None or (isinstance(value, list) and len(value) == 3 and type(value[0]) is int
                             and value[0] in codes
                             and all(isinstance(text, str) for text in value[1:]))


def _missing(cluster: Cluster, messages: dict[int, _Message], strangers: set[str]) -> WorkerError:
    absent = [worker for worker in range(cluster.workers) if worker not in messages]
    names = first_few([f"worker {worker} ({cluster.addresses[worker]})" for worker in absent])
    if strangers:
        names += f". Connections that claim to be worker {first_few(sorted(strangers))} came without this job's {TOKEN}"
    return WorkerError(f"{len(absent)} of {cluster.workers} workers did not come within --start_timeout: {names}",
                       f"check how they ended, or start them, all with the same {TOKEN} or all without; then start all "
                       "again")
