"""Forks of tests/support/forks.py are processes like any others."""

import json
import signal
import subprocess

import forks
import pytest

PROBE = """
import gc, json, os, resource, signal, sys, threading
print(json.dumps({
    "words": sys.argv, "folder": os.getcwd(), "variables": dict(os.environ), "path": sys.path, "name": __name__,
    "descriptors": sorted(os.listdir("/proc/self/fd"))[:-1], "parent": os.getppid(), "group": os.getpgid(0),
    "signals": {number: str(signal.getsignal(number)) for number in signal.valid_signals()},
    "masked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))), "collects": gc.isenabled(),
    "streams": [(stream.encoding, stream.errors, stream.line_buffering, stream.fileno()) for stream in (
        sys.stdin, sys.stdout, sys.stderr)], "stdin": sys.stdin.read(), "threads": threading.active_count(),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE), "nice": os.nice(0), "flags": str(sys.flags),
    "cores": sorted(os.sched_getaffinity(0)), "program": sys.executable}))
print("to stderr", file=sys.stderr)
"""


@pytest.fixture
def probe(tmp_path):
    """Starts a module that consists of some code, as a fork or fresh."""
    def start(code, *words, **options):
        path = tmp_path / "probe.py"
        if not path.exists() or path.read_text() != code:  # another process may be about to read it
            path.write_text(code)
        return forks.start("probe", *words, cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, **options)

    return start


def test_a_fork_sees_what_a_fresh_process_sees(probe):
    seen = []
    for fresh in (False, True):
        process = probe(PROBE, "--a=1", "b", more={"SLOW_PHASE": "none"}, fresh=fresh)
        out, err = process.communicate("said to it", timeout=60)
        assert process.returncode == 0 and err == "to stderr\n", err
        seen.append(json.loads(out))
    assert seen[0] == seen[1] and seen[0]["stdin"] == "said to it"
    assert seen[0]["variables"]["SLOW_PHASE"] == "none"


def test_how_a_fork_ends_is_seen(probe):
    ends = {"raise SystemExit(75)": 75, "import sys; sys.exit()": 0, "import os; os._exit(3)": 3, "": 0, "1 / 0": 1,
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": -signal.SIGKILL}
    for code, expected in ends.items():
        process = probe(code)
        _, err = process.communicate(timeout=60)
        assert process.returncode == expected and ("ZeroDivisionError" in err) == (code == "1 / 0"), (code, err)


def test_a_fork_can_be_signalled_and_is_its_own_process(probe):
    process, other = (probe("import time; print(flush=True); time.sleep(60)") for _ in range(2))
    for started in (process, other):
        assert started.stdout.readline() == "\n" and started.poll() is None
    assert process.pid != other.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM and other.poll() is None
    other.kill()
    assert other.wait(20) == -signal.SIGKILL


def test_variables_that_count_at_the_start_make_a_fresh_process(probe):
    code = "import sys; print('tensorflow' in sys.modules, sys.flags.optimize)"
    assert probe(code).communicate(timeout=60)[0] == "True 0\n"
    assert probe(code, more={"PYTHONOPTIMIZE": "1"}).communicate(timeout=60)[0] == "False 1\n"
