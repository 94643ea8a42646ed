"""Two workers in network namespaces of their own, and the cable between them."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import environment
from launch_jobs import FLAGS, end_all, wait_for_step
from runs import assert_equal_runs

_IP = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
_ADDRESSES = ("10.213.77.1", "10.213.77.2")


def ip(*words):
    subprocess.run([_IP, *words], check=True, capture_output=True, text=True)


@pytest.fixture
def names():
    """Two namespaces, joined by a cable."""
    assert _IP and os.getuid() == 0, "this test cuts a network: it needs root and iproute2 (apt-get install iproute2)"
    found = [f"lockstep-{os.getpid()}-{number}" for number in range(2)]
    try:
        for name in found:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", found[0], "type", "veth", "peer", "name", "cable", "netns", found[1])
        for name, address in zip(found, _ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        yield found
    finally:
        for name in found:
            subprocess.run([_IP, "netns", "del", name], capture_output=True)


def start(folder, names, *more):
    folder.mkdir(exist_ok=True)
    jobs = []
    for index, name in enumerate(names):
        config = {"cluster": {"worker": [f"{address}:2222" for address in _ADDRESSES]},
                  "task": {"type": "worker", "index": index}}
        jobs.append(subprocess.Popen(
            [_IP, "netns", "exec", name, sys.executable, "-m", "trainer.main", *FLAGS, *more], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(TF_CONFIG=json.dumps(config))))
    return jobs


def ends(jobs):
    said = [job.communicate(timeout=120) for job in jobs]
    return [job.returncode for job in jobs], [err for _, err in said]


@pytest.mark.long
def test_both_sides_of_a_cut_stop_and_only_one_writes(names, tmp_path):
    through, cut = tmp_path / "through", tmp_path / "cut"
    codes, errors = ends(start(through, names, "--max_steps=200"))
    assert codes == [0, 0], errors
    jobs = start(cut, names, "--max_steps=200")
    wait_for_step(cut, 50)
    began = time.monotonic()
    ip("-n", names[0], "link", "set", "cable", "down")
    # The side without the chief may be started again by somebody: the folder is still the chief's.
    alone = subprocess.run([sys.executable, "-m", "trainer.main", *FLAGS], cwd=cut, text=True, capture_output=True,
                           env=environment())
    assert alone.returncode == 73 and "run is in use by process" in alone.stderr
    codes, errors = ends(jobs)
    assert codes == [70, 70] and time.monotonic() - began < 60
    assert "worker 1 stopped answering" in errors[0] and "worker 0, the chief, stopped answering" in errors[1]
    ip("-n", names[0], "link", "set", "cable", "up")
    codes, errors = ends(start(cut, names, "--max_steps=200"))
    assert codes == [0, 0], errors
    assert_equal_runs(cut, through)


def test_workers_that_can_not_reach_each_other_say_so(names, tmp_path):
    ip("-n", names[0], "link", "set", "cable", "down")
    codes, errors = ends(start(tmp_path, names, "--start_timeout=3"))
    assert codes == [70, 70]
    assert f"worker 1 ({_ADDRESSES[1]}:2222)" in errors[0] and "worker 0, the chief, can't be reached" in errors[1]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path):
    yield
    end_all(tmp_path / "cut")
