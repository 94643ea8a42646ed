"""Workers over a real ssh, to a real server on this machine."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from launch_jobs import FLAGS, finish, free_ports, launch, send, wait_for_step, workers_in

from launch.ssh import Options, _worker_spec

_SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """ssh's options to reach a server of our own, with keys of our own."""
    assert _SSHD, "these tests need an ssh server and client: apt-get install openssh-server openssh-client"
    folder, (port,) = tmp_path_factory.mktemp("ssh"), free_ports(1)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nPermitRootLogin yes\n")
    with subprocess.Popen([_SSHD, "-D", "-e", "-f", folder / "config"], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "listening" in line:
                break
        else:
            raise AssertionError("the ssh server did not start")
        user = pwd.getpwuid(os.getuid()).pw_name
        yield (f"-p {port} -i {folder}/user -l {user} -o StrictHostKeyChecking=no -o LogLevel=ERROR "
               f"-o UserKnownHostsFile={folder}/known -o IdentitiesOnly=yes")
        process.terminate()


def test_a_job_over_ssh_outlives_a_killed_worker(server, tmp_path):
    flags = [*FLAGS, "--max_steps=300"]
    words = ("--hosts=127.0.0.1,localhost", f"--ssh={server}")
    job = launch(tmp_path, *words, module="launch.ssh", flags=flags)
    wait_for_step(tmp_path, 100)
    send(tmp_path, 1, signal.SIGKILL)
    out, err = finish(job, 0)
    assert "worker 1 on localhost was ended by SIGKILL" in err and "start again" in err
    assert "2 CPUs on 2 workers" in out and "test accuracy" in out


def test_workers_end_with_their_launcher_and_its_wish(server, tmp_path):
    words, flags = ("--hosts=127.0.0.1,localhost", f"--ssh={server}"), [*FLAGS, "--max_steps=100000"]
    job = launch(tmp_path, *words, module="launch.ssh", flags=flags)
    wait_for_step(tmp_path, 100)
    job.send_signal(signal.SIGINT)
    _, err = finish(job, 75)
    assert "is saved in run/checkpoints" in err and not workers_in(tmp_path)
    job = launch(tmp_path, *words, module="launch.ssh", flags=flags)
    deadline = time.monotonic() + 60
    while len(workers_in(tmp_path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    job.kill()
    job.communicate()
    deadline = time.monotonic() + 40
    while workers_in(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_hosts_are_names_or_addresses():
    assert not Options(hosts=("a", "b.c", "me@d", "10.0.0.1", "::1", "me@[fe80::1%eth0]")).problems()
    specs = [_worker_spec(host, Options(), []) for host in ("me@[::1]", "::1", "me@a")]
    assert [(spec.host, spec.agent[-2]) for spec in specs] == [("::1", "me@::1"), ("::1", "::1"), ("a", "me@a")]
    for host in ("a:22", "-oProxyCommand=x", "[::1]:22", "me@"):
        (problem,) = Options(hosts=(host,)).problems()
        assert f"--hosts names {host!r}" in problem


def test_a_host_that_can_not_be_reached(tmp_path):
    (port,) = free_ports(1)
    job = launch(tmp_path, "--hosts=127.0.0.1", f"--ssh=-p {port}", "--max_restarts=0", module="launch.ssh")
    _, err = finish(job, 70)
    assert "worker 0 on 127.0.0.1 was lost: its agent, or the ssh to it, ended with 255" in err
    assert "Connection refused" in err
    assert "Traceback" not in err
