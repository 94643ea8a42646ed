"""What a run does in another program's process: Ctrl-C, watching, and leaving the process as it was found."""

import io
import os
import random
import signal
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from conftest import environment

from trainer.process.guest.left_as_found import left_as_found, only_run
from trainer.process.guest.stop import GuestStop
from trainer.reporting.console import Console


@pytest.fixture
def handler():
    """Python's own handler of Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_is_a_request_and_a_later_one_python_s_own(handler, monkeypatch, capsys):
    with pytest.raises(KeyboardInterrupt), GuestStop() as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == "Ctrl-C"
        signal.raise_signal(signal.SIGINT)  # a terminal's and a launcher's are one request
        monkeypatch.setattr("trainer.process.guest.stop.SAME_REQUEST_SECONDS", 0.0)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")
    assert signal.getsignal(signal.SIGINT) == handler and capsys.readouterr().err.count("Ctrl-C: saving") == 1


def test_an_interrupt_that_stopped_nothing_is_passed_on(handler):
    with pytest.raises(KeyboardInterrupt), GuestStop():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), GuestStop():  # the run's own end comes first
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) == handler


@pytest.mark.parametrize("chosen", [signal.SIG_IGN, signal.SIG_DFL])
def test_where_interrupts_have_no_handler_they_get_none(handler, chosen):
    signal.signal(signal.SIGINT, chosen)
    with GuestStop():
        assert signal.getsignal(signal.SIGINT) == chosen


def test_in_another_thread_only_the_event_stops():
    event, seen = threading.Event(), []

    def work():
        with GuestStop(event) as stop:
            seen.extend([signal.getsignal(signal.SIGINT), stop.signal])
            event.set()
            seen.append(stop.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT), None, "its event is set"]


def test_variables_path_random_numbers_and_keras_come_back(monkeypatch):
    monkeypatch.setenv("NCCL_ALGO", "Tree")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    keras.utils.set_random_seed(3)
    keras.layers.Dense(1)
    name, path = keras.layers.Dense(1).name, list(sys.path)
    keras.config.set_floatx("float64")
    drawn = random.getstate(), np.random.get_state()
    expected = [random.random(), np.random.rand()]
    random.setstate(drawn[0])
    np.random.set_state(drawn[1])
    try:
        with left_as_found():
            assert keras.config.floatx() == "float32" and keras.src.utils.rng_utils.get_random_seed() is None
            assert [keras.layers.Dense(1).name for _ in range(2)] == ["dense", "dense_1"]
            os.environ.update(NCCL_ALGO="Ring", XLA_FLAGS="--x")
            sys.path.insert(0, "/nowhere")
            keras.utils.set_random_seed(4)
        assert keras.config.floatx() == "float64"
    finally:
        keras.config.set_floatx("float32")
    assert os.environ["NCCL_ALGO"] == "Tree" and "XLA_FLAGS" not in os.environ and sys.path == path
    assert [random.random(), np.random.rand()] == expected and keras.src.utils.rng_utils.get_random_seed() == 3
    number = int(name.rpartition("_")[2])
    assert keras.layers.Dense(1).name == f"dense_{number + 1}"


def test_a_process_has_one_run_at_a_time():
    with only_run() as first, only_run() as second:
        assert first and not second
    with only_run() as again:
        assert again


class Notebook(io.TextIOWrapper):
    """A stream like a notebook's: one that calls itself a terminal, here of an encoding without the figures' marks."""

    def isatty(self):
        return True


def test_a_notebook_gets_plain_lines(monkeypatch):
    stream = Notebook(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    console = Console(owns_stdout=False)
    console.start(0, 10, name="run", best=None, evaluated="test")
    console.say("2 × 3")
    console.progress(1, 10, epoch=1.0, images_per_second=None, loss=None, accuracy=None, seconds_left=None)
    console.close()
    stream.flush()
    assert stream.buffer.getvalue() == b"2 \\xd7 3\nstep 1/10  epoch 1.00\n"


def guest(body, seconds=1.0):
    program = f"""
import ctypes, faulthandler, os, signal, sys, time
from trainer.process.guest.watchdog import GuestWatchdog
with GuestWatchdog({seconds}) as watchdog:
    watchdog.reset('evaluating')
    {body}
assert not faulthandler.is_enabled() and signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
print('through', len(os.listdir('/proc/self/fd')))
"""
    return subprocess.run([sys.executable, "-c", program], text=True, env=environment(), timeout=60,
                          capture_output=True)


@pytest.mark.slow
def test_no_progress_is_told_and_ends_no_process():
    ended, quiet = guest("time.sleep(2.5)"), guest("pass")
    assert ended.returncode == 0 and "no progress for 1 s while evaluating" in ended.stderr, ended.stderr
    assert ended.stderr.count("fix:") == 2 and "Current thread" in ended.stderr
    assert ended.stdout == quiet.stdout and not quiet.stderr


@pytest.mark.slow
def test_a_lock_held_for_ever_ends_the_process():
    ended = guest("ctypes.PyDLL(None).sleep(50)")
    assert ended.returncode == -signal.SIGKILL
    assert "native code holds the interpreter" in ended.stderr and "start the kernel or the" in ended.stderr
