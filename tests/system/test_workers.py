"""Two workers on this machine, as TF_CONFIG describes them."""

import json
import signal
import socket
import time

import numpy as np
import runs
from image_files import class_folders
from launch_jobs import free_ports, has_ipv6

from trainer.config import Config
from trainer.data.dataset import load
from trainer.distributed.wire import join_address
from trainer.quality.predictions import Predictions
from trainer.reporting import jsonl

FLAGS = ("--dataset=small_data:few", "--model=small_models:smooth", "--batch_size=32", "--max_steps=50",
         "--epochs=1e6", "--optimizer=sgd", "--learning_rate=0.05", "--eval_every_epochs=0.5",
         "--log_every_steps=1", "--num_gpus=0", "--ledger")


def start(folder, workers, *more, each=(), meanwhile=None, host="127.0.0.1"):
    """Starts all workers of a job; `each` holds further flags for some of them, by number. `meanwhile` may do something
    with their addresses before."""
    addresses = [join_address(host, port) for port in free_ports(workers)]
    kept = meanwhile and meanwhile(addresses)
    jobs = []
    for index in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        jobs.append(runs.start(folder, *FLAGS, *more, *dict(each).get(index, ()), TF_CONFIG=json.dumps(config)))
    jobs[0].kept = kept
    return jobs


def finish(jobs, code):
    ends = [job.communicate(timeout=200) for job in jobs]
    assert [job.returncode for job in jobs] == [code] * len(jobs), ends
    return ends


def losses(folder):
    """Of every line of metrics; each evaluation counts every example once."""
    assert all(line["examples"] == 200 for line in jsonl.read(folder / "run/metrics.jsonl") if line["split"] == "eval")
    return {(line["split"], line["step"]): (line["loss"], line["accuracy"])
            for line in jsonl.read(folder / "run/metrics.jsonl")}


def wait_for_metrics(folder):
    """Waits until a job has done its first steps."""
    path, deadline = folder / "run/metrics.jsonl", time.monotonic() + 100
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_workers_train_like_one_process(tmp_path, run):
    folder = tmp_path / "two"
    folder.mkdir()
    ends = finish(start(folder, 2, "--export=h5", host="::1" if has_ipv6() else "127.0.0.1"), 0)
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
    assert result["replicas"] == 2 and result["exports"]["h5"]["examples"] == 200
    two, one = (Predictions.read(each / "run/predictions.npz") for each in (folder, tmp_path))
    assert two.ids.tolist() == list(range(200)) and two.accuracy == result["eval_accuracy"]
    assert (two.predicted == one.predicted).all() and np.allclose(two.probabilities, one.probabilities, atol=1e-4)


def test_a_signal_to_any_worker_stops_all_and_they_go_on_equal(tmp_path):
    folders = [tmp_path / name for name in ("through", "stopped")]
    for folder in folders:
        folder.mkdir()
    flags = ("--export=none", "--max_steps=600", "--eval_every_epochs=10")
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
    jobs = start(tmp_path, 2, "--export=none", "--max_steps=100000", "--eval_every_epochs=10000")
    wait_for_metrics(tmp_path)
    jobs[1].kill()
    began = time.monotonic()
    out, err = jobs[0].communicate(timeout=100)
    assert jobs[0].returncode == 70 and time.monotonic() - began < 30, out + err
    # A closed socket tells first, or the coordination service that misses the worker's heartbeats.
    assert "another worker is gone: Collective ops is aborted" in err or "worker 1 stopped answering" in err, err
    assert "Traceback (most" not in err


def test_four_workers_see_the_same_batches_as_four_replicas(tmp_path, run):
    folder = tmp_path / "four"
    folder.mkdir()
    finish(start(folder, 4, "--export=none"), 0)
    alone = run("trainer.main", *FLAGS, "--model_dir=run", "--export=none", "--virtual_devices=4")
    assert alone.code == 0, alone.err
    together, single = losses(folder), losses(tmp_path)
    assert together.keys() == single.keys() and len(together) == 50 + 3
    for key, (loss, accuracy) in single.items():
        assert abs(together[key][0] - loss) / loss < 1e-5 and together[key][1] == accuracy
    assert (folder / "run/ledger.jsonl").read_text() == (tmp_path / "run/ledger.jsonl").read_text()


def test_workers_that_are_not_alike_do_not_begin(tmp_path):
    for _, err in finish(start(tmp_path, 2, each={1: ("--learning_rate=0.1", "--seed=3")}), 64):
        assert "--learning_rate: 0.05 on worker 0; 0.1 on worker 1" in err and "--seed: 0 on worker 0; 3 on" in err
    assert not (tmp_path / "run/config.json").exists()


def test_data_that_differs_between_workers_ends_all(tmp_path):
    for number in range(2):
        class_folders(tmp_path / str(number) / "train", 40 + number)
        class_folders(tmp_path / str(number) / "test", 20)
    flags = ("--dataset=folder", "--image_size=32", "--batch_size=8")
    ended = finish(start(tmp_path, 2, *flags, each={number: (f"--data_dir={number}",) for number in range(2)}), 64)
    for _, err in ended:
        assert "data: fingerprint: " in err and "data: train/" in err and "on worker 0; " in err
        assert "data: test/" not in err


def test_what_the_chief_alone_meets_ends_all_with_its_code(tmp_path):
    (tmp_path / "run").touch()
    (_, chief), (_, other) = finish(start(tmp_path, 2), 74)
    assert "run" in chief and "worker 0 (127.0.0.1:" in other and "can't begin: " in other


def test_what_one_worker_alone_meets_ends_all_with_its_code(tmp_path):
    for name in ("train", "test"):
        class_folders(tmp_path / "data" / name, 40)
    flags = ("--dataset=folder", "--image_size=32", "--batch_size=8", "--data_dir=data")
    (_, chief), (_, other) = finish(start(tmp_path, 2, *flags, each={1: ("--data_dir=nothing",)}), 65)
    assert "worker 1 ended: " in chief and "nothing" in chief and "nothing" in other


def test_a_worker_that_never_starts_is_named(tmp_path):
    jobs = start(tmp_path, 3, "--batch_size=48", "--start_timeout=12")
    jobs[2].kill()
    jobs[2].communicate()
    for _, err in finish(jobs[:2], 70):
        assert "1 of 3 workers did not come within --start_timeout: worker 2 (127.0.0.1:" in err


def test_a_port_in_use_is_named_on_all(tmp_path):
    def occupy(addresses):
        host, port = addresses[1].split(":")
        return socket.create_server((host, int(port)))

    jobs = start(tmp_path, 2, meanwhile=occupy)
    with jobs[0].kept:
        for _, err in finish(jobs, 73):
            assert "can't have port " in err and "Address already in use" in err and "Traceback" not in err


def test_bad_images_count_over_all_workers(tmp_path):
    for name in ("train", "test"):
        class_folders(tmp_path / "data" / name, 40)
    flags = ("--dataset=folder", "--image_size=32", "--batch_size=8", f"--data_dir={tmp_path / 'data'}",
             "--max_steps=5", "--export=none")
    train = load(Config(dataset="folder", data_dir=str(tmp_path / "data"), image_size=32)).train
    steps = train.order(0, 8).stream(0, 40)[0].reshape(5, 8)
    for example in (steps[1, 0], steps[1, 7]):  # one for each worker
        path = tmp_path / "data" / train.name_of(int(example))
        path.write_bytes(path.read_bytes()[:-40])
    for _, err in finish(start(tmp_path, 2, *flags, "--max_bad_records=1"), 65):
        assert "2 images or files can't be used; --max_bad_records is 1" in err
    other = tmp_path / "other"
    other.mkdir()
    ends = finish(start(other, 2, *flags, "--max_bad_records=2"), 0)
    assert [err.count("lockstep: warning: left out: ") for _, err in ends] == [1, 1]
    assert json.loads((other / "run/result.json").read_text())["bad_records"] == 2
