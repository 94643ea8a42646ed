"""Jobs on a real Slurm.

A time limit has a minute at least and is looked at every 30 s, so the job that is to meet it starts first, and
trains while the other tests run.
"""

import json
import re
import shutil
import subprocess
import sys

import pytest
from own_slurm import PROGRAMS, Slurm, wait_for

from trainer.distributed import slurm_env
from trainer.reporting import jsonl

# Until it has met its time limit, the job is so slow that it can't end before.
THROTTLED = """
import glob
import os
import time
import keras
import tensorflow as tf
from small_models import smooth

STOPPED = glob.glob("limited/checkpoints/step-*[1-9]*")
PAUSE = 0.04 if os.environ["SLURM_JOB_NAME"] == "limited" and not STOPPED else 0

class Throttle(keras.layers.Layer):
    def call(self, inputs, training=None):
        if not training:
            return inputs
        with tf.control_dependencies([tf.py_function(lambda: time.sleep(PAUSE), [], [])]):
            return tf.identity(inputs)

def model(classes, image_shape):
    inner = smooth(classes, image_shape)
    return keras.Model(inner.input, Throttle()(inner.output))
"""
FLAGS = ("--dataset=small_data:few", "--model=throttled:model", "--batch_size=32", "--max_steps=1000", "--epochs=1e6",
         "--optimizer=sgd", "--learning_rate=0.05", "--eval_every_epochs=10", "--log_every_steps=1", "--num_gpus=0",
         "--export=none")
# In the place of Python and the trainer: how a worker ends follows from the job's name, its number and the start.
STAND_IN = """
echo >> starts-$SLURM_JOB_NAME-$SLURM_PROCID
case $SLURM_JOB_NAME-$SLURM_PROCID-$(wc -l < starts-$SLURM_JOB_NAME-$SLURM_PROCID) in
    lost-0-1) sleep 1; exit 70;;
    lost-1-1) kill -9 $$;;
    lost-0-2) exit 69;;
    lost-1-2) sleep 1; exit 70;;
    wrong-*) exit 65;;
    gone-*) exit 69;;
    words-0-*) printf '%s\\n' "$@" > words; pwd >> words;;
    asked-*) exit 75;;
    told-*) trap 'exit 75' TERM; echo > here-$SLURM_PROCID; while true; do sleep 0.1; done;;
esac
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.fail(f"this test runs a small Slurm, and {', '.join(missing)} isn't there: apt-get install slurm-wlm "
                    "munge")
    found = Slurm(tmp_path_factory.mktemp("slurm"))
    (found.folder / "throttled.py").write_text(THROTTLED)
    (found.folder / "worker.sh").write_text(STAND_IN)
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def limited(cluster):
    """The number of a job whose time limit is too short for it."""
    return cluster.submit("--job_name=limited", "--time=1", "--signal_before=10", "--", *FLAGS, "--model_dir=limited")


@pytest.fixture(scope="module")
def bare(cluster, limited):
    """(folder, output) of the same run as two tasks of srun. Starting takes all CPUs: one run after the other does."""
    wait_for("the first step", (cluster.folder / "limited/metrics.jsonl").exists, 100)
    done = subprocess.run(["srun", "--nodes=2", "--ntasks=2", sys.executable, "-m", "trainer.main", *FLAGS,
                           "--model_dir=bare"], cwd=cluster.folder, env=cluster.environment, capture_output=True,
                          text=True, timeout=200)
    assert done.returncode == 0, done
    return cluster.folder / "bare", done.stdout


def stand_in(cluster, name, *words):
    return cluster.submit(f"--job_name={name}", "--max_restarts=2", "--python=sh worker.sh", *words, "--",
                          "--dataset=shapes", "--model_dir=a b's/$x")


def starts(cluster, name):
    return [(cluster.folder / f"starts-{name}-{worker}").read_text().count("\n") for worker in (0, 1)]


def test_how_workers_end_decides_who_starts_again(cluster, limited):
    jobs = {name: stand_in(cluster, name, "--cpus_per_task=2") for name in ("lost", "wrong", "gone", "words")}
    ends = {name: (said["JobState"], said["ExitCode"]) for name, job in jobs.items() if (said := cluster.wait(job))}
    assert ends == {"lost": ("COMPLETED", "0:0"), "wrong": ("FAILED", "65:0"), "gone": ("FAILED", "69:0"),
                    "words": ("COMPLETED", "0:0")}
    assert {name: starts(cluster, name) for name in jobs} == {"lost": [3, 3], "wrong": [1, 1], "gone": [3, 3],
                                                             "words": [1, 1]}
    assert "(srun: 137); restart 1 of 2 in 1 s" in cluster.log("lost", jobs["lost"])
    assert "and all 2 restarts (--max_restarts) are used" in cluster.log("gone", jobs["gone"])
    assert (cluster.folder / "words").read_text().splitlines() == [
        "-m", "trainer.main", "--dataset=shapes", "--model_dir=a b's/$x", str(cluster.folder)]


def test_a_job_that_may_not_come_back_says_so(cluster, limited):
    script = cluster.folder / "asked.sh"
    cluster.ask(sys.executable, "-m", "launch.slurm", "--nodes=2", "--job_name=asked", "--python=sh worker.sh",
                f"--out={script}", "--", "--dataset=shapes")
    job = cluster.ask("sbatch", "--parsable", "--no-requeue", str(script))
    assert cluster.wait(job)["ExitCode"] == "75:0"
    assert "Slurm refused to queue it again; submit the script again to go on" in cluster.log("asked", job)


def test_scancel_is_for_good(cluster, limited):
    job = stand_in(cluster, "told")
    wait_for("both workers", lambda: all((cluster.folder / f"here-{worker}").exists() for worker in (0, 1)), 30)
    cluster.ask("scancel", job)
    said = cluster.wait(job)
    assert (said["JobState"], said["Restarts"]) == ("CANCELLED", "0")
    wait_for("the end of its workers", lambda: cluster.log("told", job).count("exit code 75") == 2, 20)
    assert "queueing" not in cluster.log("told", job) and cluster.wait(job)["JobState"] == "CANCELLED"


def test_every_task_finds_its_place_however_they_are_dealt_out(cluster, limited):
    code = ("import os; from trainer.distributed.cluster import read_cluster as read; found = read('auto')\n"
            "print(found.worker, os.environ['SLURMD_NODENAME'], *found.addresses)")
    for distribution in ("block", "cyclic"):
        tasks = sorted(line.split() for line in cluster.ask(
            "srun", "-N2", "-n3", f"--distribution={distribution}", sys.executable, "-c", code).splitlines())
        assert [int(number) for number, *_ in tasks] == [0, 1, 2] and len({tuple(rest) for _, _, *rest in tasks}) == 1
        assert all(addresses[int(number)].startswith(f"{node}:") for number, node, *addresses in tasks)


def test_a_shell_in_an_allocation_trains_alone(cluster, limited):
    (cluster.folder / "read.py").write_text("from trainer.distributed.cluster import Cluster, read_cluster\n"
                                            "print(read_cluster('auto') == Cluster())\n")
    read = (sys.executable, "read.py")
    assert cluster.ask("salloc", "-N2", "-n4", *read) == "True"
    assert cluster.ask("srun", "-n1", *read) == "True"
    cluster.ask("sbatch", "--wait", "-N2", "-n4", "--output=shell.log", f"--wrap={' '.join(read)}")
    assert (cluster.folder / "shell.log").read_text() == "True\n"


def test_host_lists_are_what_scontrol_makes_of_them(cluster, limited):
    for text in ("node[01-03,07],gpu5", "n[8-11]", "rack[0-1]node[1-2]", "a,b3,b[004-006]"):
        assert slurm_env.expand_hosts(text) == cluster.ask("scontrol", "show", "hostnames", text).split()
    names = [f"gpu{number:03d}" for number in (*range(1, 12), 40, 99, 100, 101)] + ["login1"]
    assert slurm_env.expand_hosts(cluster.ask("scontrol", "show", "hostlist", ",".join(names))) == names


def test_the_tasks_of_a_bare_srun_train_together(bare):
    folder, out = bare
    assert "2 CPUs on 2 workers" in out and out.count("test accuracy") == 1  # the chief alone speaks
    assert json.loads((folder / "result.json").read_text())["replicas"] == 2


def test_a_job_comes_back_after_its_time_limit_and_ends_as_if_there_were_none(cluster, limited, bare):
    said, log = cluster.wait(limited, 600), cluster.log("limited", limited)
    assert (said["JobState"], said["ExitCode"]) == ("COMPLETED", "0:0"), log
    assert int(said["Restarts"]) >= 1 and "Traceback" not in log
    stopped = [int(step) for step in re.findall(r"step (\d+) is saved in limited/checkpoints", log)]
    assert 0 < max(stopped) < 1000 and f"resuming from step {max(stopped)}" in log
    through, back = ({(line["split"], line["step"]): (line["loss"], line["accuracy"]) for line in
                      jsonl.read(folder / "metrics.jsonl")} for folder in (bare[0], cluster.folder / "limited"))
    assert back == through and len(through) == 1000 + 3
