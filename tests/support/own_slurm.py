"""A small Slurm for tests: two nodes, both this machine, under two of its loopback addresses."""

import getpass
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from conftest import environment

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")
NODES = ("127.0.0.1", "127.0.0.2")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# The time that a job waits when it is queued again: two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# A node may have as many CPUs as this file says.
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
MpiDefault=none
KillWait=15
NodeName=127.0.0.1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 State=UNKNOWN
NodeName=127.0.0.2 NodeAddr=127.0.0.2 Port={ports[2]} CPUs=16 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def wait_for(event, condition, seconds):
    """Waits until a condition is true, and returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{event} did not come within {seconds} s"
        time.sleep(0.1)
    return value


# All others, such as SIGNALING and REQUEUED, pass: a job that is seen in one hasn't ended.
_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
          "TIMEOUT")


class Slurm:
    """A cluster in a folder, started without systemd. `stop` ends every process of the cluster."""

    def __init__(self, folder):
        self.folder, self._daemons = folder, []
        self.environment = {name: value for name, value in environment().items() if not name.startswith("SLURM_")}
        # The variable is also the mark of the cluster's processes.
        self.environment["SLURM_CONF"] = str(folder / "slurm.conf")

    def start(self):
        """Starts the daemons, and waits until both nodes are idle."""
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = [held.getsockname()[1] for held in sockets]
        for held in sockets:
            held.close()
        (self.folder / "slurm.conf").write_text(CONF.format(folder=self.folder, ports=ports, host=socket.gethostname(),
                                                            user=getpass.getuser()))
        for name in ("state", "munge", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o700)
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"socket": "munge.socket", "key-file": "munge/key", "pid-file": "munge/pid", "log-file": "munge/log",
                 "seed-file": "munge/seed"}
        self._start("munged", "--foreground", "--force", *(f"--{option}={self.folder / name}"
                                                           for option, name in files.items()))
        wait_for("munge", (self.folder / "munge.socket").exists, 10)
        self._start("slurmctld", "-D")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        wait_for("a cluster of two nodes", self._is_idle, 30)

    def _is_idle(self):
        return self.ask("sinfo", "-h", "-t", "idle", "-o", "%D") == "2"

    def _start(self, program, *words):
        with open(self.folder / f"{program}{len(self._daemons)}.log", "wb") as log:
            # If this process is killed, the daemons get a signal, too.
            words = ("setpriv", "--pdeathsig", "TERM", program, *words)
            self._daemons.append(subprocess.Popen(words, env=self.environment, stdout=log, stderr=log,
                                                  stdin=subprocess.DEVNULL, start_new_session=True))

    def stop(self):
        """Cancels the jobs, ends the daemons, and kills the processes that are left of either."""
        self.ask("scancel", "--user", getpass.getuser())
        deadline = time.monotonic() + 20
        while self.ask("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.2)
        for signum in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 5
            for pid in self.processes():
                os.kill(pid, signum)
            while self.processes() and time.monotonic() < deadline:
                time.sleep(0.1)
        for daemon in self._daemons:
            daemon.wait(10)
        assert not self.processes()

    def processes(self):
        """The ids of all processes that have this cluster's configuration in their environment."""
        mark, pids = f"\0SLURM_CONF={self.environment['SLURM_CONF']}\0".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and mark in b"\0" + (path / "environ").read_bytes():
                    pids.append(int(path.name))
            except OSError:
                pass  # the process has ended
        return pids

    def ask(self, *words, **more):
        """What a command prints that ends within seconds."""
        done = subprocess.run(words, env={**self.environment, **more}, cwd=self.folder, capture_output=True, text=True,
                              timeout=60)
        return done.stdout.strip()

    def submit(self, *words):
        """Submits a job by `launch.slurm`; returns its number."""
        done = subprocess.run([sys.executable, "-m", "launch.slurm", "--nodes=2", "--submit", *words], cwd=self.folder,
                              env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and re.fullmatch(r"\d+\n", done.stdout), done
        return done.stdout.strip()

    def wait(self, job, seconds=200):
        """Waits for the end of a job; returns what scontrol shows of the job, name to value."""
        def fields():
            return dict(word.partition("=")[::2] for word in self.ask("scontrol", "-o", "show", "job", job).split())

        try:
            return wait_for(f"the end of job {job}", lambda: (now := fields())["JobState"] in _ENDED and now, seconds)
        except AssertionError as error:
            nodes = self.ask("sinfo", "-h", "-o", "%n %T")
            raise AssertionError(f"{error}: it is {fields()['JobState']}, the nodes are {nodes}") from None

    def log(self, name, job):
        """What a job has written so far."""
        path = self.folder / f"{name}-{job}.log"
        return path.read_text() if path.exists() else ""
