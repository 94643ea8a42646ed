"""Signals: a stop that is heard in a native call, and a second one that ends at once."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from conftest import environment

pytestmark = pytest.mark.slow

# The main thread stays in one native call, as it does while TensorFlow compiles.
PROGRAM = """
import time
from trainer.process.signals import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    time.sleep(60)
"""

# The same in a section where nothing would be lost, once a save that is under way is over.
STUCK = """
import sys, time
from trainer.process.signals import StopRequest
def settled():
    time.sleep(1)
    print("settled", flush=True)
    return sys.argv[1] == "well"
with StopRequest() as stop, stop.nothing_to_save("compiling", settled):
    print("ready", flush=True)
    time.sleep(60)
"""


# All is done; what is left is the end of the interpreter, which takes a while with TensorFlow in it.
DONE = """
import atexit, sys, time
from trainer.process.signals import StopRequest
atexit.register(lambda: (print("ready", flush=True), time.sleep(1), print(open("/proc/self/status").read())))
with StopRequest(exits_process=True) as stop:
    pass
"""


# A run with a progress line, which saves once it is asked to stop.
ON_A_TERMINAL = """
import sys, time
from trainer.process.signals import StopRequest
from trainer.reporting.console import Console
with StopRequest() as stop:
    console = Console(sys.argv[1])
    console.start(0, 10**6, name="run", best=None, evaluated="test")
    console.say("ready")
    while not stop.signal:
        time.sleep(0.05)
    time.sleep(1)  # the line is drawn again
    console.say("saved")
    console.close()
"""


def start(program, *words, **more):
    process = subprocess.Popen([sys.executable, "-c", program, *words], text=True, env=environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_signal_ends_a_process_that_is_stuck_where_nothing_would_be_lost():
    process, began = start(STUCK, "well"), time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 75 and time.monotonic() - began < 10 and out == "settled\n"
    assert "asked to stop (SIGTERM) while compiling; nothing was left to save\n  fix: run the same" in err


def test_a_signal_is_heard_if_nobody_reads_what_is_said():
    process = start(STUCK, "well")
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    process.stdout.close()
    second = start(PROGRAM)
    second.stderr.close()
    second.send_signal(signal.SIGINT)
    time.sleep(1.2)
    second.send_signal(signal.SIGINT)
    assert second.wait(5) == 75
    second.stdout.close()


def test_a_terminal_that_goes_away_is_a_signal_and_ends_nothing(tmp_path, hangup):
    leader, follower = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)

    with subprocess.Popen([sys.executable, "-c", ON_A_TERMINAL, str(tmp_path / "log.txt")], text=True,
                          env=environment(TERM="xterm"), preexec_fn=take_terminal, stdin=follower, stdout=follower,
                          stderr=subprocess.PIPE) as process:
        os.close(follower)
        shown = b""
        while b"ready" not in shown:
            shown += os.read(leader, 4096)
        os.close(leader)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "lockstep: SIGHUP: saving" in err and "Traceback" not in err, err
    assert "saved" in (tmp_path / "log.txt").read_text()


def test_a_hangup_that_is_ignored_before_stays_ignored():
    """As under nohup."""
    process = start(STUCK, "well", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 75 and "asked to stop (SIGTERM)" in err and "SIGHUP" not in err


def test_it_does_not_end_there_if_what_was_under_way_failed():
    process = start(STUCK, "badly")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "settled\n"
    time.sleep(0.5)
    assert process.poll() is None  # the main thread has to say what went wrong
    process.kill()
    process.communicate()


def test_signals_at_once_are_one_wish_and_a_later_one_stops_at_once():
    process = start(PROGRAM)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 75 and time.monotonic() - began < 5
    assert "SIGTERM: saving" in err or "SIGINT: saving" in err
    assert err.count("a second signal") == 1


def test_a_signal_at_the_very_end_changes_nothing(hangup):
    process = start(DONE)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, hangup):
        process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    # By the system, not by a handler of Python's: those end before the interpreter does.
    ignored = int(out.split("SigIgn:")[1].split()[0], 16)
    assert all(ignored >> number - 1 & 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, hangup))
