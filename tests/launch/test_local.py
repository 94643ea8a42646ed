"""Several workers on this machine: real launchers, real workers, real signals."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from cases import long
from conftest import environment
from event_files import scalars
from launch_jobs import FLAGS, end_all, finish, launch, send, wait_for_step, workers_in
from runs import assert_equal_runs

from trainer.reporting import jsonl


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    out, err = finish(launch(folder, "--num_workers=2"), 0)
    assert "2 CPUs on 2 workers" in out and "test accuracy" in out
    # Where other processes take turns with the workers, one of them may be slow.
    assert all("is slow: its own part of a step" in line for line in err.splitlines()), err
    return folder


@pytest.mark.parametrize("rank", [long(0), 1])
def test_a_worker_that_is_killed_costs_nothing_but_time(undisturbed, tmp_path, rank):
    job = launch(tmp_path, "--num_workers=2")
    wait_for_step(tmp_path, 100)
    send(tmp_path, rank, signal.SIGKILL)
    _, err = finish(job, 0)
    assert err.splitlines()[0] == (f"lockstep: worker {rank} on this machine was ended by SIGKILL, as when memory "
                                   f"runs out (dmesg tells); all of it is in run/workers/{rank}.log")
    lines = [line for line in err.splitlines() if "is slow: its own part of a step" not in line]
    assert "start again in 1 s" in err and len(lines) == 2
    log = (tmp_path / f"run/workers/{1 - rank}.log").read_text()
    assert log.count("starts\n") == 2
    # Whether its socket or TensorFlow's heartbeats are heard of first is chance.
    assert "another worker is gone" in log or f"worker {rank} stopped answering" in log, log
    assert_equal_runs(tmp_path, undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_is_stopped_is_named_and_shows_its_stacks(undisturbed, tmp_path, rank):
    job = launch(tmp_path, "--num_workers=2")
    wait_for_step(tmp_path, 100)
    send(tmp_path, rank, signal.SIGSTOP)
    began = time.monotonic()
    while "start again" not in (line := job.stderr.readline()):
        assert line
        named = f"worker {rank} on this machine was stopped, and made the others wait" in line
    assert named and time.monotonic() - began < 40
    finish(job, 0)
    for number in range(2):  # of the one that was stopped, and of the one that waited for it
        log = (tmp_path / f"run/workers/{number}.log").read_text()
        assert "in train_and_evaluate" in log or "in _train" in log, log  # on its way out, where the machine is slow
    # It must not go on where it stood, for the others have ended.
    assert "Fatal Python error: Aborted" in (tmp_path / f"run/workers/{rank}.log").read_text()
    assert_equal_runs(tmp_path, undisturbed)


def test_what_hangs_shows_the_stacks_of_all_and_starts_again(tmp_path):
    flags = [*FLAGS, "--model=small_models:halting", "--max_steps=500"]
    job = launch(tmp_path, "--num_workers=2", "--hang_timeout=6", flags=flags)
    wait_for_step(tmp_path, 50)  # before, it compiles, and has longer
    (tmp_path / "hang").touch()
    _, err = finish(job, 0)
    assert "no progress for" in err and "start again in 1 s" in err
    logs = [(tmp_path / f"run/workers/{number}.log").read_text() for number in range(2)]
    assert all("where every thread stands" in log and "in train_and_evaluate" in log for log in logs)
    assert sum("in _halt" in log for log in logs) == 1


def test_a_slow_worker_is_named_with_its_share(tmp_path):
    flags = [*FLAGS, "--model=small_models:lagging", "--max_steps=150"]
    _, err = finish(launch(tmp_path, "--num_workers=2", flags=flags), 0)
    (warning,) = err.splitlines()
    assert warning.startswith("lockstep: warning: worker 1 is slow: its own part of a step takes ")
    last = list(jsonl.read(tmp_path / "run/metrics.jsonl"))[-2]
    assert 0.2 < last["waiting_share"] < 0.6  # the mean over both, of which one waits nearly all the time
    assert 0 <= last["all_reduce_share"] < 0.5
    for tag in ("speed/waiting_share", "speed/all_reduce_share"):
        assert 150 in scalars(tmp_path / "run/tensorboard", "train", tag)


@pytest.mark.long
def test_asked_to_stop_it_saves_and_goes_on_equal(undisturbed, tmp_path):
    job = launch(tmp_path, "--num_workers=2")
    wait_for_step(tmp_path, 100)
    job.send_signal(signal.SIGTERM)
    _, err = finish(job, 75)
    assert "is saved in run/checkpoints" in err and not workers_in(tmp_path)
    finish(launch(tmp_path, "--num_workers=2"), 0)
    assert_equal_runs(tmp_path, undisturbed)


@pytest.mark.long
def test_on_a_terminal_the_chief_draws_its_progress(tmp_path):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 40, 110, 0, 0))
    flags = [*FLAGS, "--max_steps=600", "--eval_every_epochs=1000"]
    with subprocess.Popen([sys.executable, "-m", "launch.local", "--", *flags], cwd=tmp_path, stdout=follower,
                          stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(TERM="xterm")) as job:
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError), os.fdopen(leader, "rb", buffering=0) as terminal:  # EIO: all have left
            while data := terminal.read(4096):
                shown += data
        assert job.wait(60) == 0
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}".encode() in shown and b"images/s" in shown and b"test accuracy" in shown


def test_workers_do_not_outlive_their_launcher(tmp_path):
    flags = [*FLAGS, "--max_steps=100000"]
    job = launch(tmp_path, "--num_workers=2", flags=flags)
    wait_for_step(tmp_path, 100)
    second = launch(tmp_path, "--num_workers=2", flags=flags)
    _, err = finish(second, 73)
    assert "run/workers is in use by process" in err
    job.kill()
    job.communicate()
    deadline = time.monotonic() + 30
    while workers_in(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "step" in max(os.listdir(tmp_path / "run/checkpoints"))


def test_what_another_start_would_not_mend_ends_the_launcher_with_its_code(tmp_path):
    flags = [*FLAGS, "--dataset=cifar10", "--data_dir=missing"]
    _, err = finish(launch(tmp_path, "--num_workers=2", flags=flags), 65)
    assert err.count("fix:") == 1 and "start again" not in err and "missing" in err
    _, err = finish(launch(tmp_path, "--max_restarts=1", "--num_workers=2",
                           flags=[*FLAGS, "--num_gpus=1", "--start_timeout=20"]), 69)
    assert "there are" in err or "visible" in err


def test_restarts_are_counted(tmp_path):
    flags = [*FLAGS, "--model=small_models:halting", "--hang_timeout=100"]
    job = launch(tmp_path, "--num_workers=2", "--max_restarts=1", flags=flags)
    for start in (1, 2):
        deadline = time.monotonic() + 60
        while len(workers := workers_in(tmp_path)) < 2 or \
                (tmp_path / "run/workers/0.log").read_text().count("starts\n") < start:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(workers[0], signal.SIGKILL)
        time.sleep(1.5)
    _, err = finish(job, 70)
    assert "(restart 1 of 1)" in err and "the job was started 2 times" in err
    end_all(tmp_path)


@pytest.mark.parametrize("words, says", [
    (["--num_workers=-1", "--", "--epoch=3"], ["--num_workers must be at least 0", "there is no flag --epoch"]),
    (["--num_workers=3", "--", "--batch_size=32"], ["nearest that are: 30 or 33"]),
    (["--gpus_per_worker=2", "--", "--num_gpus=1"], ["--gpus_per_worker=2 is not the trainer's --num_gpus=1"])])
def test_wrong_flags(run, words, says):
    ended = run("launch.local", *words)
    assert ended.code == 64 and all(word in ended.err for word in says), ended.err
    assert "Traceback" not in ended.err


def test_gpus_are_shared_out(tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nfor n in 0 1 2 3; do echo \"GPU $n: H (UUID: GPU-$n)\"; done\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    script = ("import json; from launch import local; from trainer.config import Config; arguments = []; specs = "
              "local.worker_specs(local.Options(num_workers=2), Config(), arguments); "
              "print(json.dumps([arguments, [spec.environment['CUDA_VISIBLE_DEVICES'] for spec in specs]]))")
    variables = environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
    del variables["CUDA_VISIBLE_DEVICES"]
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["--num_gpus=2"], ["0,1", "2,3"]]
