"""Where the workers of a job meet before TensorFlow connects them: who is there, and do they agree?

TensorFlow's own servers wait for a missing worker without end and without a word. So the workers meet first, at the
chief's address, by a protocol of one line each way:

    a worker → the chief    "lockstep " and a JSON object: its number, how many it knows of, its facts, its failure
    the chief → a worker    "lockstep " and a JSON array: what all of them said; or an object: why there is none

Every worker holds its port from here on, so that one in use is found now. A worker that finds an earlier job's server
at the chief's address tries again until the deadline.
"""

import contextlib
import json
import math
import socket
import time
from multiprocessing.connection import wait

from trainer.distributed.consistency import require_equal
from trainer.errors import BusyError, LockstepError, WorkerError, of_code

_GREETING = b"lockstep "
_LONGEST = 2**22  # bytes of a line
_TRY_AGAIN_SECONDS = 0.3
_AFTER_FAILURE_SECONDS = 20.0  # that the chief waits for the rest, so that they hear why there is no job
_GRACE_SECONDS = 5.0  # that the others wait longer than the chief, so that they hear its answer


def rendezvous(cluster, facts, failure, seconds):
    """Meets the other workers of the job, and ends if one of them can't begin or isn't like the rest.

    Args:
        cluster: The `Cluster`.
        facts: As `facts.fingerprint_of` gives them.
        failure: The `LockstepError` that keeps this worker from beginning, or None.
        seconds: How long to wait for the others.

    Raises:
        BusyError: if this worker's port is in use.
        UsageError: if the workers are not alike.
        WorkerError: if one doesn't come, naming it.
        LockstepError: this worker's failure, or of the type of another's.
    """
    port = None
    try:
        port = _bind(cluster)
    except LockstepError as error:
        failure = failure or error
    mine = {"worker": cluster.worker, "workers": cluster.workers, "facts": facts,
            "failure": failure and [failure.code, failure.cause, failure.fix]}
    deadline = time.monotonic() + seconds
    try:
        if cluster.worker:
            messages = _ask_chief(cluster, mine, deadline + _GRACE_SECONDS)
        elif port:
            messages = _gather(cluster, port, mine, deadline)
        else:
            messages = [mine]  # nowhere to meet: the others will say that they can't reach it
    finally:
        if port:
            port.close()
    if failure:
        raise failure
    for message in messages:
        if message.get("failure"):
            worker, (code, cause, fix) = message["worker"], message["failure"]
            raise of_code(code)(f"worker {worker} ({cluster.addresses[worker]}) can't begin: {cause}", fix)
    require_equal([message["facts"] for message in messages])


def _bind(cluster):
    """A socket on this worker's port, on all of the machine's addresses, as TensorFlow's server will be."""
    host, port = split_address(cluster.addresses[cluster.worker])
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", port))
        server.listen(cluster.workers)  # all of them do: a port that is only bound, another process may bind, too
        return server
    except OSError as error:
        server.close()
        raise BusyError(f"worker {cluster.worker} can't have port {port} of {host}: {error.strerror}",
                        "end what uses it, or name another port in TF_CONFIG (under Slurm: LOCKSTEP_PORT)") from None


def split_address(address):
    """"host:port" as (host, port); hosts of IPv6 stand in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _gather(cluster, server, mine, deadline):
    """The chief's part: what all workers said, which it tells all of them."""
    messages, peers, pending, patience = {0: mine}, {}, {}, _AFTER_FAILURE_SECONDS
    try:
        while len(messages) < cluster.workers:
            if any(message.get("failure") for message in messages.values()):
                deadline = min(deadline, time.monotonic() + patience)
                patience = math.inf
            left = deadline - time.monotonic()
            if left <= 0 and patience == math.inf:
                break  # there will be no job; who has come by now shall know why
            if left <= 0:
                raise _missing(cluster, messages)
            for ready in wait([server, *pending, *peers.values()], min(left, 1.0)):
                if ready is server:
                    pending[server.accept()[0]] = b""
                elif ready in pending:
                    _receive(ready, pending, messages, peers, cluster)
                else:
                    _drop(ready, messages, peers)
        answer = [messages[worker] for worker in sorted(messages)]
        _send(peers.values(), answer)
        return answer
    except WorkerError as error:
        _send(peers.values(), {"failure": [error.code, error.cause, error.fix]})
        raise
    finally:
        for peer in [*peers.values(), *pending]:
            peer.close()


def _receive(peer, pending, messages, peers, cluster):
    """Takes what one guest sends; whoever isn't a worker of this job is sent away."""
    try:
        data = peer.recv(2**16)
    except OSError:
        data = b""
    pending[peer] += data
    if data and not pending[peer].endswith(b"\n") and len(pending[peer]) < _LONGEST:
        return
    line = pending.pop(peer)
    message = _read(line)
    worker = message.get("worker") if isinstance(message, dict) else None
    if not isinstance(worker, int) or not 0 < worker < cluster.workers or message.get("workers") != cluster.workers \
            or not isinstance(message.get("facts"), dict) or not _is_failure(message.get("failure")):
        peer.close()
        return
    if worker in peers:
        peers[worker].close()  # it was started again
    messages[worker], peers[worker] = message, peer


def _drop(peer, messages, peers):
    """Whoever waits has nothing more to say: this one is gone, and may come again."""
    for worker in [worker for worker, known in peers.items() if known is peer]:
        del messages[worker], peers[worker]
    peer.close()


def _send(peers, answer):
    for peer in peers:
        with contextlib.suppress(OSError):
            peer.settimeout(_GRACE_SECONDS)
            peer.sendall(_GREETING + json.dumps(answer).encode() + b"\n")


def _ask_chief(cluster, mine, deadline):
    """The others' part: says who this is, until somebody answers as the chief does."""
    address, message = cluster.addresses[0], "nobody answered"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(split_address(address), timeout=min(left, 10.0)) as chief:
                chief.sendall(_GREETING + json.dumps(mine).encode() + b"\n")
                chief.settimeout(max(0.1, deadline - time.monotonic()))
                answer = _read(_line(chief))
        except OSError as error:
            message = f"{error.strerror or error}"
            answer = None
        if isinstance(answer, list):
            return answer
        if isinstance(answer, dict) and answer.get("failure") and _is_failure(answer["failure"]):
            code, cause, fix = answer["failure"]
            raise of_code(code)(cause, fix)
        time.sleep(min(_TRY_AGAIN_SECONDS, max(0.0, deadline - time.monotonic())))
    raise WorkerError(f"worker 0, the chief, can't be reached at {address}: {message}",
                      "check whether it was started, and whether the network lets its port through")


def _line(chief):
    data = b""
    while not data.endswith(b"\n") and len(data) < _LONGEST * 64:
        part = chief.recv(2**16)
        if not part or not (data + part).startswith(_GREETING[:len(data + part)]):
            break  # it ended, or it is something else
        data += part
    return data


def _read(line):
    if not line.startswith(_GREETING):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line[len(_GREETING):])
    return None


def _is_failure(message):
    """Whether something from outside is None or an exit code, a cause and a fix."""
    codes = {kind.code for kind in LockstepError.__subclasses__()}
    return message is None or (isinstance(message, list) and len(message) == 3 and message[0] in codes)


def _missing(cluster, messages):
    absent = [worker for worker in range(cluster.workers) if worker not in messages]
    names = ", ".join(f"worker {worker} ({cluster.addresses[worker]})" for worker in absent)
    return WorkerError(f"{len(absent)} of {cluster.workers} workers did not come within --start_timeout: {names}",
                       "check how they ended, or start them; then start all again")
