"""The supervisor and its agents, with workers that do as they are told: a script in place of the trainer."""

import os
import signal
import threading
import time

import pytest
from conftest import ROOT

from launch.workers.supervisor import Supervisor, WorkerSpec
from launch.workers.worker import agent_command
from trainer.errors import LockstepError
from trainer.process.signals import StopRequest

WORKER = """
import json, os, signal, sys, time
began, rank = time.monotonic(), json.loads(os.environ["TF_CONFIG"])["task"]["index"]
with open(f"starts-{rank}", "a") as file:
    file.write("x")
start = os.path.getsize(f"starts-{rank}")
def end(code, *words):
    for word in words:
        print(word, file=sys.stderr, flush=True)
    sys.exit(code)
exec(sys.argv[1])
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Runs a script on some workers; returns the `LockstepError` that it ends with, or None."""
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer/__init__.py").touch()
    (tmp_path / "trainer/main.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(script, workers=2, restarts=0, again=None, gpus=""):
        more = {"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}
        specs = [WorkerSpec("127.0.0.1", "here", tuple(agent_command()), {"PYTHONPATH": str(tmp_path), **more},
                            str(tmp_path))
                 for _ in range(workers)]
        with StopRequest() as stop:
            try:
                Supervisor(specs, [script], tmp_path / "run", restarts, stop, again and [again]).run()
            except LockstepError as error:
                return error

    return run


def test_the_first_cause_is_shown_and_not_the_noise(job, capfd):
    error = job("""
if rank != 1:
    time.sleep(1 + rank)
    end(70, "lockstep: another worker is gone", "  fix: start again")
print("chatter", "lockstep: warning: odd", sep="\\n", file=sys.stderr, flush=True)
time.sleep(2)
end(65, "lockstep: the data is broken", "  fix: repair it")
""", 3)
    assert error.code == 65 and "worker 1 on here ended with 65" in error.cause and "the data is broken" in error.cause
    assert error.fix == "repair it" and "fix:" not in error.cause
    out, err = capfd.readouterr()
    assert "[worker 1] lockstep: warning: odd" in err.splitlines() and "gone" not in out + err + error.cause
    assert "chatter" not in err


def test_whoever_ends_by_another_cause_counts_before_who_lost_somebody(job):
    error = job("""
if rank == 0:
    end(70, "lockstep: another worker is gone")
time.sleep(1)
os.kill(os.getpid(), signal.SIGSEGV)
""")
    assert error.code == 70 and "worker 1 on here was ended by SIGSEGV" in error.cause


def test_a_defect_keeps_its_code_and_its_traceback(job, tmp_path):
    error = job("time.sleep(rank / 2); 1 / 0")
    assert error.code == 1 and "ZeroDivisionError" in error.cause and "run/workers/0.log" in error.cause
    assert "ZeroDivisionError" in (tmp_path / "run/workers/0.log").read_text()


def test_it_starts_again_with_growing_pauses_until_it_is_through(job, tmp_path, capfd):
    began = time.monotonic()
    assert job("end(70 if start < 3 else 0)", restarts=2) is None
    assert 3 < time.monotonic() - began < 20 and (tmp_path / "starts-1").read_text() == "xxx"
    err = capfd.readouterr().err
    assert "in 1 s" in err and "(restart 1 of 2)" in err and "in 2 s" in err and "(restart 2 of 2)" in err


@pytest.mark.parametrize("code, starts", [(69, 2), (70, 2), (75, 2), (64, 1), (74, 1), (76, 1), (1, 1)])
def test_who_starts_again(job, tmp_path, code, starts):
    error = job(f"end({code})", workers=1, restarts=1)
    assert error.code == code and len((tmp_path / "starts-0").read_text()) == starts


@pytest.mark.parametrize("there, starts", [((0, 1), 2), ((0,), 1), ((1,), 1)])
def test_a_lost_gpu_of_this_machine_must_be_there_again(job, tmp_path, monkeypatch, there, starts):
    listing = "".join(f"echo 'GPU {number}: H (UUID: GPU-{number})'; " for number in there)
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{listing}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    error = job("end(69, 'lockstep: a GPU is lost')", workers=1, restarts=1, gpus="0,1")
    assert error.code == 69 and len((tmp_path / "starts-0").read_text()) == starts
    lost = {0, 1} - set(there)
    assert all(f"GPU {number} of this machine is not there again" in error.cause for number in lost)


# Worker 1 fails after a second; worker 0 pays no attention to any request to end.
FAILS_ALONE = """
if rank:
    time.sleep(1)
    end(70, "lockstep: alone")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGABRT, signal.SIG_IGN)
"""


def test_words_of_a_worker_put_off_nothing_after_a_failure(job):
    """Also if a stop is requested meanwhile: after a failure all is over within 30 s."""
    began = time.monotonic()
    threading.Timer(7.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    error = job(FAILS_ALONE + """
while time.monotonic() < began + 60:
    print("lockstep: SIGTERM: still training", file=sys.stderr, flush=True)
    time.sleep(1)
""")
    assert error and time.monotonic() - began < 30


def test_words_of_a_worker_put_off_its_end_after_a_request(job, hangup):
    """Also after a hangup, which its agent and the worker see as SIGTERM."""
    began = time.monotonic()
    threading.Timer(2.0, os.kill, (os.getpid(), hangup)).start()
    error = job("""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while time.monotonic() < began + 30:
    print("lockstep: SIGTERM: still saving", file=sys.stderr, flush=True)
    time.sleep(1)
end(75, "lockstep: saved")
""", workers=1)
    assert error.code == 75 and 29 < time.monotonic() - began < 60


def test_whoever_does_not_end_is_ended_within_30_seconds(job):
    began = time.monotonic()
    error = job(FAILS_ALONE + """
child = os.fork()
while True: time.sleep(1)
""")
    assert error.code == 70 and "alone" in error.cause and 15 < time.monotonic() - began < 30


def test_nothing_that_a_worker_says_gets_in_the_way(job, capfd):
    error = job(r"""
if rank == 0:
    for _ in range(20000): print("a line of some length, again and again")
    print("x" * 10**6)
    sys.stdout.flush()
    os.write(1, b"\xff\xfe\n{\"ended\": 0}\nno end of line")
    os.write(2, b"\xff\x00" * 10**5)
end(0)
""")
    out, _ = capfd.readouterr()
    assert error is None and out.count("again and again") == 20000 and '{"ended": 0}' in out and "no end of line" in out


def test_a_worker_that_nothing_ends_is_not_waited_for(job):
    began = time.monotonic()
    error = job("""
if rank:
    time.sleep(1)
    end(70, "lockstep: alone")
os.kill(os.getppid(), signal.SIGSTOP)  # its agent hears nothing any more
while True: time.sleep(1)
""")
    assert error.code == 70 and time.monotonic() - began < 30
    assert "worker 0 on here doesn't end, not even by SIGKILL" in error.cause


def test_from_the_second_start_on_a_folder_may_be_used(job, tmp_path):
    assert job("end(70)", restarts=1, again="end(0)") is None


def test_a_model_dir_that_is_still_in_use_when_it_starts_again(job):
    assert job("end({1: 70, 2: 73, 3: 0}[start])", workers=1, restarts=3) is None
    assert job("end(73)", workers=1, restarts=3).code == 73


def test_an_agent_that_is_lost(job, tmp_path):
    error = job("os.kill(os.getppid(), signal.SIGKILL) if rank else None; time.sleep(60)")
    assert error.code == 70
    assert "worker 1 on here was lost: its agent, or the ssh to it, was ended by SIGKILL" in error.cause
    time.sleep(0.5)
    for entry in os.listdir("/proc"):
        try:
            alive = entry.isdecimal() and os.readlink(f"/proc/{entry}/cwd") == str(tmp_path) and \
                open(f"/proc/{entry}/stat").read().split()[2] not in "ZX"  # noqa: SIM115
        except OSError:
            continue
        assert not alive, entry
