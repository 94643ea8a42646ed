"""Devices, TF_CONFIG, and what errors of TensorFlow's are in exit codes."""

import json
import os

import pytest

from trainer.config import Config
from trainer.distributed import runtime
from trainer.distributed.cluster import Cluster, read_cluster
from trainer.distributed.devices import choice
from trainer.distributed.wire import join_address, split_address
from trainer.errors import DeviceError, UsageError
from trainer.process import tf_import
from trainer.process.exit import run_to_exit_code


@pytest.mark.slow
def test_more_gpus_than_there_are_names_what_is_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(DeviceError) as caught:
        runtime.start(Config(num_gpus=1000), Cluster())
    assert "visible to TensorFlow: " in str(caught.value) and "CUDA_VISIBLE_DEVICES is '7'" in str(caught.value)


def tf_config(kind=None, index=0, **jobs):
    """TF_CONFIG with a task, if one is named."""
    task = {"task": {"type": kind, "index": index}} if kind else {}
    return json.dumps({"cluster": jobs, **task})


@pytest.mark.parametrize("text", [
    "{", "[]", "7", "null", '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
    tf_config("worker", 1, worker=["a:1"]), tf_config("worker", -1, worker=["a:1"]),
    tf_config("worker", "x", worker=["a:1"]), tf_config("worker", True, worker=["a:1", "b:1"]),
    tf_config("worker", 0.5, worker=["a:1"]), tf_config("worker", None, worker=["a:1"]),
    tf_config("chief", 0, worker=["a:1", "b:1"]), tf_config("worker", 1, worker=["b:1"], chief=["a:1"]),
    tf_config("worker", 0, worker=["a", "b"]), tf_config("worker", 0, worker=["a:99999"]),
    tf_config("worker", 0, worker=[7]), tf_config("worker", 0, worker=["::1:2222"]),
    tf_config("worker", 0, worker=["a:1", "a:1"]), tf_config("worker", 0, worker=["a:1"], trainer=["b:1"]),
    tf_config("worker", 0, worker=["a:1"], chief=["b:1"], master=["c:1"]),
    tf_config("worker", 0, worker=["a:1"], chief=["b:1", "c:1"]), tf_config(worker=["a:1", "b:1"])])
def test_a_broken_tf_config(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="TF_CONFIG can't be read"):
        read_cluster("auto")


@pytest.mark.parametrize("text, found", [
    # Vertex AI, with keys of its own; Kubeflow, which starts counting again after the chief; SageMaker.
    (json.dumps({"cluster": {"chief": ["c:2222"], "worker": ["w-0:2222", "w-1:2222"]}, "environment": "cloud",
                 "task": {"type": "worker", "index": 1, "trial": "3"}, "job": {"python_module": "m"}}), 2),
    (tf_config("chief", 0, worker=["w-0:2222", "w-1:2222"], chief=["c:2222"]), 0),
    (tf_config("worker", "0", master=["c:2222"], worker=["w-0:2222", "w-1:2222"], ps=[]), 1),
    (tf_config("worker", 1, chief=["c:2222"], worker=["w-0:2222", "w-1:2222"], evaluator=["e:2222"]), 2)])
def test_a_chief_is_worker_0_and_the_workers_follow_it(monkeypatch, text, found):
    monkeypatch.setenv("TF_CONFIG", text)
    assert read_cluster("auto") == Cluster(found, 3, True, ("c:2222", "w-0:2222", "w-1:2222"))


@pytest.mark.parametrize("text", ["", " \n", "{}", '{"cluster": {}}', '{"cluster": null, "task": null}',
                                  '{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}',
                                  '{"task": {"type": "chief", "index": 0}, "environment": "cloud"}',
                                  tf_config(worker=["a:1"]), tf_config(chief=["a:1"]),
                                  tf_config("chief", 0, chief=["a:1"]), tf_config("worker", "0", worker=["a:1"])])
def test_who_is_alone_is_a_single_process(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert read_cluster("auto") == Cluster()


def test_multi_worker_takes_a_job_of_one(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config("chief", 0, chief=["a:1"]))
    assert read_cluster("multi_worker") == Cluster(0, 1, True, ("a:1",))


@pytest.mark.parametrize("text, says", [
    (tf_config("evaluator", 0, chief=["a:1"], worker=["b:1"]), "makes this process evaluator"),
    (tf_config("evaluator", 0), "makes this process evaluator"),
    (tf_config("ps", 0, chief=["a:1"], ps=["b:1"]), "makes this process ps"),
    (tf_config("worker", 0, master=["a:1"], worker=["b:1"], ps=["c:1"]), "has ps")])
def test_tasks_that_there_are_not_are_refused_by_name(monkeypatch, text, says):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match=f"TF_CONFIG {says}: ") as caught:
        read_cluster("auto")
    assert "out of the job's specification" in caught.value.fix


def test_ipv6_addresses_of_workers(monkeypatch):
    addresses = ("[::1]:2222", "[fe80::1%eth0]:2223", "[2001:db8::ffff:1.2.3.4]:1", "a:1", "[::1]:1")
    monkeypatch.setenv("TF_CONFIG", tf_config("worker", 1, worker=addresses))
    monkeypatch.setenv("no_proxy", "x")
    monkeypatch.setenv("no_grpc_proxy", "y")
    cluster = read_cluster("auto")
    assert cluster == Cluster(1, 5, True, addresses) and cluster.crosses_machines
    assert not Cluster(0, 4, True, ("[::1]:1", "localhost:1", "127.0.1.1:2", "[0::1]:3")).crosses_machines
    cluster.bypass_proxies()
    hosts = "::1,fe80::1%eth0,2001:db8::ffff:1.2.3.4,a"
    assert {name: os.environ[name] for name in ("no_proxy", "no_grpc_proxy")} == {
        "no_proxy": f"x,{hosts}", "no_grpc_proxy": f"y,{hosts}"}
    assert [join_address(*split_address(address)) for address in addresses] == list(addresses)


def test_multi_worker_without_tf_config(monkeypatch):
    for text in ("", "{}"):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(UsageError, match="needs a TF_CONFIG"):
            read_cluster("multi_worker")


class Gpu:
    """A device of the kind that TensorFlow would list."""

    device_type = "GPU"

    def __init__(self, capability):
        self.capability = capability


@pytest.mark.parametrize("capabilities, precision", [
    ([], "float32"), ([(8, 0)], "bfloat16"), ([(9, 0), (8, 6)], "bfloat16"), ([(7, 0)], "float16"),
    ([(9, 0), (7, 5)], "float16"), ([(6, 1)], "float32")])
def test_precision_follows_from_the_oldest_gpu(monkeypatch, capabilities, precision):
    # No GPU here: what TensorFlow says of one is put in its place, and only that.
    monkeypatch.setattr(runtime.tf.config.experimental, "get_device_details",
                        lambda gpu: {"compute_capability": gpu.capability})
    assert choice.precision_for("auto", [Gpu(capability) for capability in capabilities]) == precision
    assert choice.precision_for("float32", [Gpu((9, 0))]) == "float32"


@pytest.mark.slow
def test_memory_for_logical_gpus_needs_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    with pytest.raises(DeviceError, match="nvidia-smi did not tell it"):
        choice._memory_mib("NVIDIA A10")
    nvidia_smi(tmp_path, "0, GPU-a, NVIDIA A10, 500, 555.42", "1, GPU-b, NVIDIA A10, 1000, 555.42",
               "2, GPU-c, NVIDIA T4, 100, 555.42")
    # Of those that this process may use, and of the same kind: not the smallest of the machine.
    assert choice._memory_mib("NVIDIA A10") == 900
    assert choice._memory_mib("NVIDIA A100-SXM4-40GB MIG 2g.10gb") == 9216  # a part of a GPU has a part of its memory


def nvidia_smi(folder, *lines):
    """Puts a stand-in into a folder that tells these GPUs."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)


def test_device_errors_become_ours(monkeypatch):
    monkeypatch.setattr(tf_import, "several_workers", True)
    errors = runtime.tf.errors
    for theirs, message, code in ((errors.ResourceExhaustedError, "OOM when allocating", 64),
                                  (errors.ResourceExhaustedError, "x; No space left on device", 74),
                                  (errors.UnavailableError, "first line\nsecond line", 70),
                                  (errors.UnknownError, "Could not start gRPC server", 73),
                                  (errors.InternalError, "CUDA_ERROR_ECC_UNCORRECTABLE", 69)):
        assert run_to_exit_code(raising, theirs(None, None, message)) == code
    with pytest.raises(errors.InternalError):  # a defect of this program keeps its traceback
        run_to_exit_code(raising, errors.InternalError(None, None, "shapes differ"))


@pytest.mark.parametrize("message, says", [
    ("Collective ops is aborted by: Error reported from /job:worker/task:2: The following tasks are unhealthy (stopped "
     "sending heartbeats):\n/job:worker/replica:0/task:2\n/job:worker/replica:0/task:11\nThe tasks have crashed.",
     "workers 2, 11 stopped answering"),
    ("aborted by: Deadline Exceeded\n\nRPC: /tensorflow.CoordinationService/Heartbeat\nThe error",
     "worker 0, the chief, stopped answering"),
    ("Collective ops is aborted by: Socket closed", "another worker is gone: Collective ops is aborted by: Socket")])
def test_lost_workers_are_named_where_tensorflow_knows(message, says, monkeypatch):
    monkeypatch.setattr(tf_import, "several_workers", True)
    assert tf_import.translate(runtime.tf.errors.UnavailableError(None, None, message)).cause.startswith(says)


def raising(error):
    raise error


@pytest.mark.parametrize("message, line", [
    ("{{function_node __wrapped__X}} Unknown file format. [Op:X] name:\nmore", "Unknown file format.  name:"),
    ("Graph execution error:\n\nDetected at node a defined at (most recent call last):\n  File \"x\", line 1\n\n"
     "  File \"y\", line 2\n\nCollective ops is aborted by: reset\nMore\n\t [[{{node a}}]] [Op:b]",
     "Collective ops is aborted by: reset"), ("", "OpError")])
def test_the_reason_in_tensorflows_messages(message, line):
    assert tf_import.reason(runtime.tf.errors.OpError(None, None, message, 0)) == line


def test_exit_codes(capsys):
    def fails():
        raise UsageError(["one", "two"])

    assert run_to_exit_code(lambda: None) == 0
    assert run_to_exit_code(fails) == 64
    assert capsys.readouterr().err == "lockstep: one\n  two\n  fix: correct the above; --help lists every flag\n"
    assert run_to_exit_code(raising, OSError(28, "No space left on device", "x")) == 74
    assert run_to_exit_code(raising, OSError(36, "File name too long", "x")) == 74
    assert run_to_exit_code(raising, MemoryError()) == 64
    with pytest.raises(ZeroDivisionError):
        run_to_exit_code(lambda: 1 / 0)


def test_tf_config_says_which_worker_this_is(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1", "c:1"]}, "task": {"type": "worker", "index": 2}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert read_cluster("auto") == Cluster(2, 3, True, ("a:1", "b:1", "c:1"))
    assert read_cluster("mirrored") == Cluster()
