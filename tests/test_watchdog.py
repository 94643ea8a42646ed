"""A limit on the time without progress, in processes of their own: it ends them."""

import signal
import subprocess
import sys
import time

import pytest
from conftest import environment

pytestmark = pytest.mark.slow

HEAD = """
import sys, time
from trainer.process.watchdog import Watchdog
def forever():
    while True: time.sleep(0.1)
with Watchdog({seconds}) as watchdog:
    print("ready", flush=True)
"""


def start(body, seconds=1.5):
    return subprocess.Popen([sys.executable, "-c", HEAD.format(seconds=seconds) + body], text=True, env=environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_who_makes_no_progress_shows_the_stacks_and_ends():
    job = start("    watchdog.reset('evaluating')\n    forever()\n")
    began = time.monotonic()
    _, err = job.communicate(timeout=30)
    assert job.returncode == 70 and 1.5 < time.monotonic() - began < 15
    assert "no progress for 2 s while evaluating; where every thread stands" in err and "in forever" in err
    assert err.count("fix:") == 1 and "--hang_timeout=1.5" in err


def test_progress_and_longer_phases_put_it_off():
    job = start("    for _ in range(6):\n        time.sleep(0.5)\n        watchdog.reset()\n"
                "    with watchdog.phase('compiling', 4):\n        time.sleep(3)\n    print('through')\n")
    out, err = job.communicate(timeout=60)
    assert job.returncode == 0 and out == "ready\nthrough\n" and not err


def test_time_in_which_the_process_was_stopped_does_not_count():
    job = start("    watchdog.reset()\n    time.sleep(1)\n    print('through')\n", 4.0)
    job.stdout.readline()
    job.send_signal(signal.SIGSTOP)
    time.sleep(6)
    job.send_signal(signal.SIGCONT)
    out, err = job.communicate(timeout=30)
    assert job.returncode == 0 and "through" in out and not err


def test_a_stop_that_goes_on_is_told_and_one_that_does_not_is_not():
    program = """
import time
from trainer.process.signals import StopRequest
from trainer.process.watchdog import Watchdog
with StopRequest() as stop, Watchdog(300, stop) as watchdog:
    watchdog.reset()
    print("ready", flush=True)
    for _ in range(16):
        time.sleep(0.5)
        watchdog.reset()
    time.sleep(12)
"""
    job = subprocess.Popen([sys.executable, "-c", program], text=True, env=environment(), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    job.stdout.readline()
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=60)
    # Eight seconds of progress and six of grace: a word each five seconds, the first after five.
    assert err.count("lockstep: SIGTERM: still training") == 2, err
