"""The batch script's text, the flags that it is made of, and what srun's variables say. No Slurm."""

import itertools
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch import slurm as launcher
from launch.restart_policy import starts_again
from trainer.distributed import cluster, slurm_env
from trainer.errors import UsageError

# What srun set in the second of three tasks on two nodes, and sbatch in a script for four.
TASK = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NODELIST": "node[08-09]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_NODEID": "0", "SLURM_LOCALID": "1", "SLURM_PROCID": "1"}
SCRIPT = {"SLURM_JOB_ID": "2", "SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_PROCID": "0",
          "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}
LETTERS = st.text("abcxyz-_", min_size=1, max_size=5)


def written(capsys, *words):
    """(the script, its #SBATCH options, the words that start a worker)."""
    assert launcher.main(list(words)) == 0
    script, err = capsys.readouterr()
    assert not err
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in script.splitlines()
                   if line.startswith("#SBATCH"))
    return script, options, shlex.split(script.split("trainer=(\n")[1].split("\n)\n")[0])


def test_the_script(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "it's mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    trainer = ["--model_dir=a b's/$x", "--dataset=shapes", "--flagfile=more flags.cfg"]
    (folder / "more flags.cfg").write_text("--seed=3\n--hang_timeout=1000.5\n")
    script, options, command = written(
        capsys, "--nodes=2", "--gpus_per_node=4", "--cpus_per_task=16", "--time=1-12", "--partition=gpu",
        "--account=us", "--job_name=digits", "--signal_before=300", "--max_restarts=7",
        "--python=apptainer exec 'my image.sif' python3", "--", *trainer)
    assert command == ["apptainer", "exec", "my image.sif", "python3", "-m", "trainer.main", *trainer, "--num_gpus=4"]
    assert shlex.split(options.pop("chdir")) == [str(folder)]  # what relative names in the words are meant from
    assert options == {
        "job-name": "digits", "nodes": "2", "ntasks-per-node": "1", "gpus-per-node": "4", "cpus-per-task": "16",
        "time": "1-12", "partition": "gpu", "account": "us", "output": "%x-%j.log", "open-mode": "append",
        "requeue": "", "signal": "TERM@300"}
    assert "\nmax_restarts=7\nsignal_before=300\npatience=1061\n" in script
    assert not subprocess.run(["bash", "-n"], input=script, text=True, check=True, capture_output=True).stderr


def test_the_script_knows_the_table_of_the_rules(capsys):
    script, _, _ = written(capsys, "--", "--dataset=shapes")
    conditions = [line.strip().removeprefix("if ").removesuffix("; then") for line in script.splitlines()
                  if line.strip().startswith("if ((code !=")]
    assert len(conditions) == 1
    ends = subprocess.run(["bash", "-c", f"for ((code = 0; code < 256; code++)); do {conditions[0]}; echo $?; done"],
                          text=True, capture_output=True, check=True).stdout.split()
    assert [code for code in range(256) if ends[code] == "1"] == \
        [code for code in range(256) if starts_again(code) and code != 75]  # those go back into the queue


def test_little_is_asked_for_by_default(capsys):
    _, options, command = written(capsys, "--", "--dataset=shapes", "--strategy=multi_worker")
    assert not {"time", "partition", "account", "gpus-per-node", "cpus-per-task"} & options.keys()
    assert options["nodes"] == "1" and command[-1] == "--strategy=multi_worker"


def test_a_file_is_written_where_it_is_wanted(run, tmp_path):
    done = run("launch.slurm", "--out=my job.sh", "--", "--dataset=shapes")
    assert done.code == 0 and not done.out and "sbatch 'my job.sh' submits it" in done.err
    assert (tmp_path / "my job.sh").read_text().startswith("#!/bin/bash\n#SBATCH --job-name=lockstep\n")
    assert run("launch.slurm", "--out=nowhere/job.sh", "--", "--dataset=shapes").code == 74


def test_without_sbatch_there_is_a_way_out(run):
    done = run("launch.slurm", "--submit", "--", "--dataset=shapes", PATH="/nowhere")
    assert done.code == 64 and "sbatch, which submits jobs, isn't on the PATH" in done.err and "--out=FILE" in done.err


def test_all_that_is_wrong_is_told_at_once(run, tmp_path):
    done = run("launch.slurm", "--nodes=0", "--time=soon", "--job_name=a/b", "--python='", "--out=job.sh", "--",
               "--batch_size=many", "--datset=shapes")
    assert done.code == 64 and not (tmp_path / "job.sh").exists()
    for words in ("--nodes must be at least 1", "received 'soon'", "received 'a/b'", "--python must be words",
                  "--batch_size must be a whole number", "did you mean --dataset?", "fix:"):
        assert words in done.err


@pytest.mark.parametrize("own, trainer, says", [
    ("--time=2 --signal_before=120", "", "--time must be longer than --signal_before=120"),
    ("--nodes=2", "--strategy=mirrored", "each of the 2 workers would train the same"),
    ("--nodes=2", "--virtual_devices=2", "leave it out"),
    ("--nodes=3", "", "divisible by the number of replicas, 3; received 128; the nearest that are: 126 or 129"),
    ("--nodes=3 --gpus_per_node=2", "", "the nearest that are: 126 or 132"),
    ("--gpus_per_node=2", "--num_gpus=4", "must be --gpus_per_node, 2; received 4"),
    ("--gpus_per_node=2", "--strategy=one_device", "--strategy=one_device has one replica"),
    ("--python=", "--model_dir=~nobody_of_that_name/x", "home of a user who has none")])
def test_what_does_not_fit_together_is_refused(capsys, own, trainer, says):
    assert launcher.main([*own.split(), "--", "--dataset=shapes", *trainer.split()]) == 64
    out, err = capsys.readouterr()
    assert not out and says in err


def test_times_are_read_as_slurm_does():
    times = {"90": 5400, "90:30": 5430, "1:02:03": 3723, "2-00": 172800, "1-2:30": 95400, "1-2:30:05": 95405}
    assert {time: launcher.seconds(time) for time in times} == times
    assert [launcher.seconds(time) for time in ("", "x", "1:2:3:4", "1-", "-5", "1.5")] == [None] * 6


@given(st.lists(st.tuples(LETTERS, st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 12), st.integers(1, 4)),
                                            max_size=4)), min_size=1, max_size=4))
def test_host_lists_expand_to_what_they_were_made_of(parts):
    texts, hosts = [], []
    for name, runs in parts:
        numbers = [f"{first + more:0{width}d}" for first, length, width in runs for more in range(length + 1)]
        ranges = [f"{first:0{width}d}" + (f"-{first + length:0{width}d}" if length else "")
                  for first, length, width in runs]
        texts.append(f"{name}[{','.join(ranges)}]" if runs else name)
        hosts += [name + number for number in numbers] if runs else [name]
    assert slurm_env.expand_hosts(",".join(texts)) == hosts


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_counts_expand_to_what_they_were_made_of(counts):
    groups = [(count, len(list(same))) for count, same in itertools.groupby(counts)]
    assert slurm_env.expand_counts(",".join(f"{count}(x{times})" if times > 1 else f"{count}"
                                        for count, times in groups)) == counts


def test_host_lists_by_hand():
    assert slurm_env.expand_hosts("node[01-03,07],gpu5") == ["node01", "node02", "node03", "node07", "gpu5"]
    assert slurm_env.expand_hosts("r[0-1]n[9-10]-ib") == ["r0n9-ib", "r0n10-ib", "r1n9-ib", "r1n10-ib"]
    assert slurm_env.expand_counts("2(x3),1") == [2, 2, 2, 1]
    for wrong in ("", ",", "a,,b", "a[1-2", "a]", "a[]", "a[2-1]", "a[1-x]", "a[0-99999999]", "a[0-999]b[0-999]"):
        with pytest.raises(ValueError):
            slurm_env.expand_hosts(wrong)
    for wrong in ("", "x", "2(x)", "2,", "1(x99999999)"):
        with pytest.raises(ValueError):
            slurm_env.expand_counts(wrong)


def test_a_task_finds_its_place():
    worker, addresses = slurm_env.find_task(TASK)
    ports = [int(address.split(":")[1]) for address in addresses]
    assert worker == 1 and [address.split(":")[0] for address in addresses] == ["node08", "node08", "node09"]
    assert len(set(ports)) == 3 and all(20000 <= port < 32000 for port in ports)
    others = {**TASK, "SLURM_NODEID": "1", "SLURM_LOCALID": "0", "SLURM_PROCID": "2"}
    assert slurm_env.find_task(others) == (2, addresses)
    assert slurm_env.find_task({**TASK, "LOCKSTEP_PORT": "5000"})[1] == ("node08:5000", "node08:5001", "node09:5002")


def test_jobs_of_one_time_have_ports_of_their_own():
    used = [port for job in range(700, 730) for step in range(3)
            for port in slurm_env.find_task({**TASK, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})[1]]
    assert len(set(used)) == 30 * 3 * 3


def test_a_shell_in_an_allocation_is_no_worker():
    alone = {**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NODELIST": "node08", "SLURM_STEP_TASKS_PER_NODE": "1",
             "SLURM_LOCALID": "0"}
    assert [slurm_env.find_task(variables) for variables in ({}, SCRIPT, alone)] == [None] * 3
    assert slurm_env.find_task(alone, least=1)[0] == 0


def test_variables_that_do_not_fit_together_are_refused():
    for wrong in ({"SLURM_STEP_NODELIST": "node[08"}, {"SLURM_STEP_TASKS_PER_NODE": "3"}, {"SLURM_LOCALID": "2"},
                  {"SLURM_NODEID": "x"}, {"SLURM_STEP_NUM_TASKS": "4"}):
        with pytest.raises(UsageError, match="Slurm's variables can't be read"):
            slurm_env.find_task({**TASK, **wrong})
    for wrong in ("x", "80", "65534", "-1"):
        with pytest.raises(UsageError, match="LOCKSTEP_PORT must be from 1024 to 65533"):
            slurm_env.find_task({**TASK, "LOCKSTEP_PORT": wrong})


def test_who_ignores_slurm_and_who_needs_it(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    assert cluster.read_cluster("one_device") == cluster.read_cluster("mirrored") == cluster.Cluster()
    found = cluster.read_cluster("auto")
    assert (found.worker, found.workers, found.distributed) == (1, 3, True)
    assert found == cluster.read_cluster("multi_worker")
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert cluster.read_cluster("auto") == found
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    assert cluster.read_cluster("auto").addresses == ("a:1", "b:1")
