"""Native code that holds the interpreter's lock and never comes back: what needs no Python thread still ends it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import forks
import pytest
from launch_jobs import FLAGS, finish, launch, wait_for_step, workers_in

# A data set's function is called at the start, in the main thread: here it locks a mutex twice, through ctypes.PyDLL,
# which keeps the interpreter's lock. No signal wakes it.
STUCK = """
import ctypes, os, pathlib
def forever(config):
    pathlib.Path("stuck").write_text("")
    mutex, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
"""
# The same in one worker of two, in the middle of the training: when the file `now` is there.
STUCK_LATER = """
import ctypes, os, pathlib, threading, json
def model(classes, image_shape):
    import small_models
    if json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index") == 1:
        threading.Thread(target=wait, daemon=True).start()
    return small_models.smooth(classes, image_shape)
def wait():
    import time
    while not pathlib.Path("now").exists():
        time.sleep(0.1)
    mutex, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
"""


def start(folder, *flags):
    (folder / "users.py").write_text(STUCK)
    # A fork, which has imported TensorFlow: on a busy machine that takes longer than a short --hang_timeout allows.
    process = forks.start("trainer.main", "--dataset=users:forever", "--num_gpus=0", "--model_dir=run", *flags,
                          cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (folder / "stuck").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1.0)
    return process


def still_running(folder):
    """Command lines of processes whose working folder is there."""
    found = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdecimal() and os.readlink(f"{entry.path}/cwd") == str(folder):
                found.append((Path(entry.path) / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_the_watchdog_ends_it_with_its_stacks(tmp_path):
    process = start(tmp_path, "--hang_timeout=2")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 70, err
    assert "in forever" in err and "(--hang_timeout=2), in native code that holds the interpreter" in err
    assert not still_running(tmp_path)


def test_a_signal_ends_it(tmp_path):
    process, began = start(tmp_path), time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "asked to stop" in err, err
    assert time.monotonic() - began < 15
    assert not still_running(tmp_path)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "users.py").write_text(STUCK_LATER)
    flags = [*(flag for flag in FLAGS if not flag.startswith(("--model=", "--max_steps"))), "--model=users:model",
             "--max_steps=1000000", "--hang_timeout=300"]
    running = launch(tmp_path, "--num_workers=2", "--max_restarts=0", flags=flags)
    wait_for_step(tmp_path, 20)
    (tmp_path / "now").write_text("")
    time.sleep(2)
    return running


def test_a_signal_to_the_launcher_ends_a_job_whose_worker_is_stuck(job, tmp_path):
    assert len(workers_in(tmp_path)) == 2
    began = time.monotonic()
    job.send_signal(signal.SIGTERM)
    finish(job, 75)
    assert time.monotonic() - began < 45
    assert not still_running(tmp_path)


def test_a_proxy_is_not_asked_for_the_jobs_own_addresses(tmp_path):
    proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy")}
    flags = [*(flag for flag in FLAGS if not flag.startswith("--max_steps")), "--max_steps=20"]
    finish(launch(tmp_path, "--num_workers=2", flags=flags, **proxies), 0)
