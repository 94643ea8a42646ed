"""Workers meet: real sockets on this machine, a thread for each worker."""

import errno
import json
import socket
import threading
import time

import pytest
from launch_jobs import has_ipv6

from trainer.config import Config
from trainer.distributed import consistency
from trainer.distributed.cluster import Cluster
from trainer.distributed.consistency import differences, fingerprint_of
from trainer.distributed.rendezvous import rendezvous
from trainer.distributed.wire import bind, join_address, split_address
from trainer.errors import BusyError, DeviceError, LockstepError, UsageError, WorkerError


def addresses(count, host="127.0.0.1"):
    sockets = [bind(0, reuse=False) for _ in range(count)]
    found = tuple(join_address(host, one.getsockname()[1]) for one in sockets)
    for one in sockets:
        one.close()
    return found


def line(worker, workers, **more):
    return b"lockstep " + json.dumps({"worker": worker, "workers": workers, "facts": {"x": 2}, **more}).encode() + b"\n"


def deep(levels):
    """A list in a list in a list."""
    return [deep(levels - 1)] if levels else []


class Job:
    """Workers that meet, each in a thread."""

    def __init__(self, count, host="127.0.0.1"):
        self.addresses, self.ends, self.threads = addresses(count, host), {}, []

    def start(self, worker, facts=None, failure=None, seconds=20.0):
        def act():
            try:
                cluster = Cluster(worker, len(self.addresses), True, self.addresses)
                rendezvous(cluster, facts or {"x": 1}, failure, seconds)
                self.ends[worker] = None
            except LockstepError as error:
                self.ends[worker] = error

        self.threads.append(threading.Thread(target=act))
        self.threads[-1].start()

    def join(self):
        for thread in self.threads:
            thread.join(40)
        return [self.ends[worker] for worker in sorted(self.ends)]


def test_all_who_agree_go_on_whoever_comes_first():
    job = Job(4)
    for worker in (3, 1, 0, 2):
        job.start(worker)
        time.sleep(0.1)
    assert job.join() == [None] * 4
    for address in job.addresses:  # and leave their ports to TensorFlow
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(split_address(address))


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_they_meet_by_ipv6():
    job = Job(2, "::1")
    for worker in (1, 0):
        job.start(worker)
    assert job.addresses[0].startswith("[::1]:") and job.join() == [None] * 2
    with bind(0) as server:  # and what either kind of address has is taken
        server.listen()
        with pytest.raises(OSError):
            bind(server.getsockname()[1])
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OSError):
        bind(server.getsockname()[1])


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_machine_where_ipv6_is_switched_off(monkeypatch, number):
    class Socket(socket.socket):
        def bind(self, address):
            if self.family == socket.AF_INET6:
                raise OSError(number, "switched off")
            super().bind(address)

    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
    monkeypatch.setattr(socket, "socket", Socket)
    with bind(0) as server:
        assert server.family == socket.AF_INET and server.getsockname()[1]


def test_a_missing_worker_is_named_on_all():
    job = Job(3)
    job.start(0, seconds=1.5)
    job.start(1, seconds=1.5)
    ends = job.join()
    assert [type(end) for end in ends] == [WorkerError] * 2
    assert all(f"worker 2 ({job.addresses[2]})" in str(end) and "--start_timeout" in str(end) for end in ends)


def test_a_chief_that_is_missing():
    job = Job(2)
    job.start(1, seconds=-4.0)  # and five more that others wait longer than the chief
    (end,) = job.join()
    assert isinstance(end, WorkerError) and f"worker 0, the chief, can't be reached at {job.addresses[0]}" in str(end)


def test_differences_are_told_to_all():
    job = Job(3)
    for worker, rate in enumerate((0.1, 0.2, 0.1)):
        job.start(worker, {"--learning_rate": rate, "keras": "3"})
    ends = job.join()
    assert [type(end) for end in ends] == [UsageError] * 3
    assert all("--learning_rate: 0.1 on workers 0, 2; 0.2 on worker 1" in str(end) for end in ends)
    assert "keras" not in str(ends[0])


@pytest.mark.parametrize("who", [0, 1])
def test_all_hear_why_one_can_not_begin(who):
    job = Job(3)
    for worker in range(3):
        job.start(worker, failure=DeviceError("no GPU here", "buy one") if worker == who else None)
    ends = job.join()
    assert [end.code for end in ends] == [69] * 3 and ends[who].cause == "no GPU here"
    assert f"worker {who} ({job.addresses[who]}) can't begin: no GPU here" in ends[2].cause


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_a_port_in_use_is_found_now(who):
    job = Job(2)
    with socket.create_server(split_address(job.addresses[who])):
        for worker in range(2):
            job.start(worker, seconds=2)
        ends = job.join()
    assert isinstance(ends[who], BusyError) and job.addresses[who].split(":")[1] in str(ends[who])
    assert isinstance(ends[1 - who], BusyError if who else WorkerError)


def test_whoever_else_knocks_is_sent_away():
    job = Job(2)
    job.start(0)
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"lockstep {}\n", b'lockstep {"worker": "1"}\n', b"lockstep [1]\n", b"",
                  b'lockstep {"worker": 1, "workers": 3}\n', b'lockstep {"worker": 1, "workers": 2}\n',
                  b'lockstep {"worker": 1, "workers": 2, "facts": {}, "failure": [1, "a", "b"]}\n',
                  b"\xff" * 100 + b"\n", b'lockstep {"worker": 0}\n',
                  b"lockstep " + b"[" * 10**5 + b"\n"):
        for _ in range(50):
            try:
                guest = socket.create_connection(split_address(job.addresses[0]), timeout=5)
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        with guest:
            guest.sendall(words)
            guest.shutdown(socket.SHUT_WR)
            assert guest.recv(100) == b""
    job.start(1)
    assert job.join() == [None, None]


def test_two_workers_with_one_port():
    job = Job(3)
    job.addresses = (*job.addresses[:2], job.addresses[1])
    for worker in range(3):
        job.start(worker)
    ends = job.join()
    assert [end.code for end in ends] == [73] * 3


def come_early(job, worker):
    """A connection that has said that it is a worker, and stays open."""
    early = socket.create_connection(split_address(job.addresses[0]))
    early.sendall(line(worker, len(job.addresses)))
    time.sleep(0.2)
    return early


def test_a_worker_that_comes_again_replaces_itself():
    job = Job(3)
    job.start(0)
    time.sleep(0.2)
    with come_early(job, 1):
        job.start(1)
        time.sleep(0.2)
        job.start(2)
        assert job.join() == [None] * 3


def test_a_worker_that_goes_away_is_waited_for():
    job = Job(3)
    job.start(0)
    time.sleep(0.2)
    come_early(job, 1).close()
    job.start(2)
    time.sleep(0.3)
    job.start(1)
    assert job.join() == [None] * 3


def test_facts():
    mine = fingerprint_of(Config(model="small_models:smooth"))
    other = fingerprint_of(Config(learning_rate=1.0, data_dir="x"))
    assert len(mine["Lockstep's code"]) == 16 and mine["tensorflow"].startswith("2.")
    assert len(mine["the code of small_models:smooth"]) == 16
    lines = differences([mine, mine, other])
    assert [line.split(":")[0] for line in lines] == ["--learning_rate", "--model", "the code of small_models"]
    assert differences([mine, mine]) == []
    assert split_address("[::1]:22") == ("::1", 22)


def test_workers_with_other_code_are_not_alike():
    """The hash is over the whole package, wherever the module that makes it lies in it."""
    assert {"main.py", "loop.py"} <= {path.name for path in consistency._PACKAGE.iterdir()}


def test_who_does_not_know_the_token_is_no_worker(monkeypatch):
    monkeypatch.setenv("LOCKSTEP_TOKEN", "a secret")
    job = Job(2)
    job.start(0, seconds=3.0)
    time.sleep(0.5)
    forged = [line(1, 2), line(1, 2, failure=[64, "cause", "fix"]), b"lockstep " + b"0" * 64 + b" " + line(1, 2)[9:]]
    for data in forged:
        with socket.create_connection(split_address(job.addresses[0])) as stranger:
            stranger.sendall(data)
            assert stranger.recv(100) == b""
    (end,) = job.join()
    assert isinstance(end, WorkerError) and "claim to be worker 1 came without this job's LOCKSTEP_TOKEN" in str(end)


def test_workers_with_the_token_meet_beside_a_thousand_strangers(monkeypatch):
    monkeypatch.setenv("LOCKSTEP_TOKEN", "a secret")
    job = Job(3)
    job.start(0)
    time.sleep(0.5)
    strangers = []
    for number in range(1000):
        strangers.append(socket.create_connection(split_address(job.addresses[0])))
        if number % 3 == 0:
            strangers[-1].sendall(line(2, 3))
        if number in (400, 999):
            job.start(1 if number == 400 else 2)
    assert job.join() == [None] * 3
    for stranger in strangers:
        stranger.close()


@pytest.mark.parametrize("message", [
    {"failure": [[], "a", "b"]}, {"failure": [64, "a"]}, {"failure": [64, {}, "b"]}, {"failure": True}, {"facts": []},
    {"facts": {"deep": deep(900)}},
    {"worker": deep(900)}, {"worker": True}, {"worker": [1]}, {"worker": 1.0}, {"worker": -1}, {"workers": None}])
def test_a_message_of_any_shape_ends_nothing(message):
    job = Job(2)
    job.start(0)
    time.sleep(0.2)
    with socket.create_connection(split_address(job.addresses[0])) as stranger:
        stranger.sendall(line(**{"worker": 1, "workers": 2, **message}))
        assert stranger.recv(100) == b""
    job.start(1)
    assert job.join() == [None] * 2


def test_a_line_that_never_ends_is_closed(monkeypatch):
    monkeypatch.setattr("trainer.distributed.rendezvous._LINE_SECONDS", 0.5)
    job = Job(2)
    job.start(0)
    time.sleep(0.3)
    with socket.create_connection(split_address(job.addresses[0])) as slow:
        slow.sendall(b"lockstep ")
        slow.settimeout(10)
        assert slow.recv(10) == b""
    job.start(1)
    assert job.join() == [None] * 2
