"""Two workers on this machine, as TF_CONFIG describes them."""

import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
from conftest import environment

from trainer.reporting import lines

FLAGS = ("--dataset=shapes", "--model=small_models:smooth", "--batch_size=32", "--max_steps=50", "--optimizer=sgd",
         "--learning_rate=0.05", "--eval_every_epochs=0.05", "--log_every_steps=1", "--num_gpus=0", "--ledger")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(folder, workers, *more):
    """Starts all workers of a job."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    jobs = []
    for index in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        jobs.append(subprocess.Popen(
            [sys.executable, "-m", "trainer.main", *FLAGS, "--model_dir=run", *more], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(TF_CONFIG=json.dumps(config))))
    return jobs


def finish(jobs, code):
    ends = [job.communicate(timeout=200) for job in jobs]
    assert [job.returncode for job in jobs] == [code] * len(jobs), ends
    return ends


def losses(folder):
    return {(line["split"], line["step"]): (line["loss"], line["accuracy"])
            for line in lines.read(folder / "run/metrics.jsonl")}


def wait_for_metrics(folder):
    """Waits until a job has done its first steps."""
    path, deadline = folder / "run/metrics.jsonl", time.monotonic() + 100
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_workers_train_like_one_process(tmp_path, run):
    folder = tmp_path / "two"
    folder.mkdir()
    ends = finish(start(folder, 2, "--export=h5"), 0)
    assert "on 2 workers" in ends[0][0] and not ends[1][0]  # the chief alone speaks
    alone = run("trainer.main", *FLAGS, "--model_dir=run", "--export=none")
    assert alone.code == 0, alone.err
    together, single = losses(folder), losses(tmp_path)
    assert together.keys() == single.keys() and len(together) == 50 + 3
    for key, (loss, accuracy) in single.items():
        assert abs(together[key][0] - loss) / loss < 1e-5
        assert together[key][1] == accuracy
    assert (folder / "run/ledger.jsonl").read_text() == (tmp_path / "run/ledger.jsonl").read_text()
    result = json.loads((folder / "run/result.json").read_text())
    assert result["replicas"] == 2 and result["exports"]["h5"]["examples"] == 2000


def test_a_signal_to_any_worker_stops_all_and_they_go_on_equal(tmp_path):
    folders = [tmp_path / name for name in ("through", "stopped")]
    for folder in folders:
        folder.mkdir()
    flags = ("--export=none", "--max_steps=600", "--eval_every_epochs=1")
    finish(start(folders[0], 2, *flags), 0)
    jobs = start(folders[1], 2, *flags)
    wait_for_metrics(folders[1])
    jobs[1].send_signal(signal.SIGTERM)
    finish(jobs, 75)
    finish(start(folders[1], 2, *flags), 0)
    through, stopped = (losses(folder) for folder in folders)
    assert through.keys() == stopped.keys()
    assert np.array_equal(list(through.values()), list(stopped.values()))


def test_the_others_end_when_a_worker_is_killed(tmp_path):
    jobs = start(tmp_path, 2, "--export=none", "--max_steps=100000", "--eval_every_epochs=1000")
    wait_for_metrics(tmp_path)
    jobs[1].kill()
    began = time.monotonic()
    out, err = jobs[0].communicate(timeout=100)
    assert jobs[0].returncode == 70 and time.monotonic() - began < 30, out + err
    assert "another worker is gone: Collective ops is aborted" in err and "Traceback" not in err
    jobs[1].communicate()
