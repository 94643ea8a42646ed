"""Devices, TF_CONFIG, and what errors of TensorFlow's are in exit codes."""

import json

import pytest

from trainer.config import Config
from trainer.distributed import runtime
from trainer.distributed.cluster import Cluster, read_cluster
from trainer.distributed.devices import choice
from trainer.errors import DeviceError, UsageError
from trainer.process import tf_import
from trainer.process.exit import run_to_exit_code


@pytest.mark.slow
def test_more_gpus_than_there_are_names_what_is_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(DeviceError) as caught:
        runtime.start(Config(num_gpus=1000), Cluster())
    assert "visible to TensorFlow: " in str(caught.value) and "CUDA_VISIBLE_DEVICES is '7'" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}",
                                  '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
                                  '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
                                  '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
                                  '{"cluster": {"worker": ["a:99999"]}, "task": {"type": "worker", "index": 0}}',
                                  '{"cluster": {"worker": [7]}, "task": {"type": "worker", "index": 0}}',
                                  '{"cluster": {"worker": ["a:1"], "chief": ["b:1"]}, "task": {"type": "worker", '
                                  '"index": 0}}'])
def test_a_broken_tf_config(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="TF_CONFIG can't be read"):
        read_cluster("auto")


def test_multi_worker_without_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UsageError, match="needs TF_CONFIG"):
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
