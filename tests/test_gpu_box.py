"""A GPU box as it is: drivers, libraries and texts, with stand-ins for nvidia-smi, libcuda and what they say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, environment
from test_runtime import nvidia_smi

from trainer.device_kind import CPU, GPU
from trainer.distributed.devices import compatibility, machine, record
from trainer.distributed.devices.autotune import AutotuneFile
from trainer.errors import DeviceError
from trainer.process import gpu_environment as preparation
from trainer.process import gpu_failures, tf_import

H100, BLACKWELL, A100, V100 = ({"NVIDIA X": capability} for capability in ((9, 0), (12, 0), (8, 0), (7, 0)))


@pytest.mark.parametrize("gpus, cuda, xla", [(H100, 12050, True), (H100, 13000, True), (A100, 11080, True),
                                             (H100, None, True), (BLACKWELL, 12080, False), ({}, None, True)])
def test_gpus_that_can_work_may(gpus, cuda, xla):
    assert not [line for line in compatibility.check(gpus, cuda, xla) if "first start" not in line]


@pytest.mark.parametrize("gpus, cuda, xla, says", [
    (H100, 12040, True, "needs a driver of CUDA 12.5 or newer for TensorFlow 2.21; this one's is 12.4"),
    (H100, 12040, False, "needs a driver of CUDA 12.5"),  # its small kernels are text for the driver, without XLA, too
    (BLACKWELL, 12080, True, "XLA doesn't know NVIDIA X .compute capability 12.0."),
    ({**A100, "NVIDIA Y": (10, 0)}, 12080, True, "XLA doesn't know NVIDIA Y")])
def test_gpus_that_cannot_are_refused_before_their_first_kernel(gpus, cuda, xla, says):
    with pytest.raises(DeviceError, match=says):
        compatibility.check(gpus, cuda, xla)


def test_what_is_said_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_CACHE_PATH", str(tmp_path / "cache"))
    assert "before Turing" in compatibility.check(V100, 12050, True)[0]
    assert "the first start compiles them" in compatibility.check(H100, 12050, True)[0]
    (tmp_path / "cache").mkdir()
    assert not compatibility.check(H100, 12050, True)


@pytest.mark.slow
def test_the_drivers_cuda_is_the_drivers_word(tmp_path):
    """Asked of a libcuda of our own, in a process of its own."""
    source = tmp_path / "cuda.c"
    source.write_text("int cuDriverGetVersion(int *version) { *version = 12040; return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
    code = "from trainer.distributed.devices import machine; print(machine.spoken(machine.driver_cuda()))"
    told = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                           env=environment(LD_LIBRARY_PATH=path)).stdout.strip()
            for path in (str(tmp_path), "/nowhere")]
    assert told == ["12.4", machine.spoken(machine.driver_cuda())]


LISTING = ("0, GPU-aa, NVIDIA H200, 143771, 570.1", "1, GPU-bb, NVIDIA A10, 23028, 570.1")


@pytest.mark.slow
@pytest.mark.parametrize("visible, names", [
    (None, ["NVIDIA H200", "NVIDIA A10"]), ("1", ["NVIDIA A10"]), ("1,0", ["NVIDIA A10", "NVIDIA H200"]),
    ("GPU-b", ["NVIDIA A10"]), ("7,0", []), ("", []), ("-1", [])])
def test_the_gpus_that_a_process_may_use(tmp_path, monkeypatch, visible, names):
    nvidia_smi(tmp_path, *LISTING)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [gpu.name for gpu in machine.gpus(visible)] == names


@pytest.mark.slow
def test_a_machine_without_nvidia_smi_or_with_one_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []
    nvidia_smi(tmp_path, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    assert machine.gpus() == []


@pytest.mark.parametrize("words, code, says", [
    (("--max_steps=2",), 0, "lockstep: warning: this machine has GPUs (NVIDIA A10, NVIDIA H200), and TensorFlow can't "
     "use them: training on the CPU."),
    (("--max_steps=2", "--num_gpus=0"), 0, ""),
    (("--max_steps=2", "--num_gpus=1"), 69, "the driver's view: NVIDIA H200, NVIDIA A10")])
def test_a_gpu_that_tensorflow_cannot_use_is_no_silent_cpu_run(run, tmp_path, words, code, says):
    nvidia_smi(tmp_path, *LISTING)
    done = run("trainer.main", "--dataset=shapes", "--model=small_models:smooth", "--export=none", *words,
               PATH=f"{tmp_path}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="0,1")
    assert done.code == code and says in done.err, done.err
    assert bool(done.err) == bool(says)
    if says and not code:
        assert "pip install '.[cuda]'" in done.err
        assert says[len("lockstep: "):] in (tmp_path / "runs/shapes-smooth/log.txt").read_text()


# As TensorFlow 2.21, XLA, cuDNN and NCCL say them; the beginning of each stands in the wheel or in a public thread.
@pytest.mark.parametrize("text, code, says", [
    ("Autotuner could not find any supported configs for HLO: %cudnn-conv-bias-activation.9", 69, "cuDNN doesn't fit"),
    ("DNN library initialization failed. Look at the errors above for more details.", 69, "cuDNN doesn't fit"),
    ("DNN library is not found.", 69, "cuDNN doesn't fit"),
    ("CUDNN_STATUS_NOT_INITIALIZED in external/local_xla/cuda_dnn.cc(1)", 69, "cuDNN doesn't fit"),
    ("No PTX compilation provider is available. Neither ptxas/nvlink nor nvjtlink is available.", 69, "compiler"),
    ("ptxas exited with non-zero error code 65280", 69, "compiler"),
    ("libdevice not found at ./libdevice.10.bc", 69, "compiler"),
    ("Failed to load PTX text as a module: CUDA_ERROR_UNSUPPORTED_PTX_VERSION", 69, "driver can't read"),
    ("cuLaunchKernel failed: CUDA_ERROR_INVALID_HANDLE: invalid resource handle", 69, "driver can't read"),
    ("Failed to load in-memory CUBIN: CUDA_ERROR_INVALID_PTX", 69, "driver can't read"),
    ("Failed to call cublasGemmEx: CUBLAS_STATUS_INTERNAL_ERROR", 69, "cuBLAS failed"),
    ("failed to create cublas handle: CUBLAS_STATUS_ALLOC_FAILED", 64, "out of memory"),
    ("Out of memory while trying to allocate 12345678 bytes.", 64, "out of memory"),
    ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", 64, "out of memory"),
    ("CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered", 69, "a GPU failed"),
    ("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered", 69, "a GPU failed"),
    ("NCCL: unhandled cuda error (run with NCCL_DEBUG=INFO for details). Set NCCL_DEBUG=WARN", 69, "NCCL failed"),
    ("ncclSystemError: System call failed", 69, "NCCL failed")])
@pytest.mark.parametrize("kind", ["InternalError", "UnknownError", "FailedPreconditionError", "UnavailableError"])
def test_a_gpus_failure_is_named_with_its_fix_and_what_was_said_before(monkeypatch, kind, text, code, says):
    said = "I0000 oneDNN custom operations are on\nE0000 cuda_dnn.cc: an old library\n"
    monkeypatch.setattr(tf_import, "_kept", [said])
    error = getattr(tf_import.tf.errors, kind)(None, None, f"Graph execution error:\n\n{text}\n\t [[{{{{node a}}}}]]")
    found = tf_import.translate(error)
    assert found.code == code and says in found.cause and text.split(":")[0].split(".")[0] in found.cause
    assert found.fix and found.details == "TensorFlow's libraries said:\nE0000 cuda_dnn.cc: an old library"


def test_on_one_machine_nobody_else_is_gone():
    """An `Unavailable` that no worker can have caused is a defect, with its traceback, and nothing to start again."""
    assert tf_import.translate(tf_import.tf.errors.UnavailableError(None, None, "shapes differ")) is None
    assert gpu_failures.name("shapes differ", "shapes differ") is None


def test_the_environment_that_tensorflow_finds(monkeypatch, tmp_path):
    monkeypatch.setattr(preparation, "_toolkit", lambda: Path("/site/nvidia/cuda_nvcc"))
    environ = {"XLA_FLAGS": "--xla_dump_to=/x", "TF_GPU_THREAD_MODE": "global"}
    preparation.prepare(environ)
    preparation.prepare(environ)
    assert environ["XLA_FLAGS"] == "--xla_dump_to=/x --xla_gpu_cuda_data_dir=/site/nvidia/cuda_nvcc"
    assert environ["TF_GPU_THREAD_MODE"] == "global" and "NCCL_ALGO" not in environ
    preparation.prepare(environ, deterministic=True, autotune=("a", "b"))
    assert environ["XLA_FLAGS"].endswith(" --xla_gpu_deterministic_ops=true") and environ["NCCL_NVLS_ENABLE"] == "0"
    theirs = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=false --xla_gpu_cuda_data_dir=/cuda"}
    preparation.prepare(theirs, deterministic=True)
    assert theirs["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=false --xla_gpu_cuda_data_dir=/cuda"
    tuned = {}
    preparation.prepare(tuned, autotune=(tmp_path / "known", tmp_path / "new"))
    assert "--xla_gpu_load_autotune_results_from=" in tuned["XLA_FLAGS"]
    assert "--xla_gpu_dump_autotune_results_to=" in tuned["XLA_FLAGS"]


@pytest.mark.slow
def test_this_tensorflow_knows_every_flag(tmp_path, monkeypatch):
    """One that it doesn't know would end the process."""
    environ = environment()
    monkeypatch.setattr(preparation, "_toolkit", lambda: tmp_path)
    for deterministic in (True, False):
        preparation.prepare(environ, deterministic=deterministic, autotune=(tmp_path / "known", tmp_path / "new"))
    code = ("from trainer.process.tf_import import tf\n"
            "print(tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1.0)).numpy())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, cwd=ROOT)
    assert done.stdout.strip() == "2.0" and environ["XLA_FLAGS"].count("--xla") == 4, done.stderr


@pytest.mark.slow
def test_pips_compiler_is_found_where_it_is_installed(tmp_path, monkeypatch):
    program = tmp_path / "nvidia/cuda_nvcc/bin/ptxas"
    program.parent.mkdir(parents=True)
    program.touch()
    code = "from trainer.process import gpu_environment; print(gpu_environment._toolkit())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=environment(PYTHONPATH=f"{ROOT}:{tmp_path}"))
    assert done.stdout.strip() == str(tmp_path / "nvidia/cuda_nvcc"), done.stderr


@pytest.mark.slow
def test_what_a_run_computed_on_and_what_is_said_of_a_difference(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, *LISTING)
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 00000000 08:01 42    /site/nvidia/cudnn/lib/libcudnn.so.9\n"
                    "7f02-7f03 r-xp 00000000 08:01 43    /site/libother.so.1\n")
    assert record.mapped_libraries(maps) == {"libcudnn": "/site/nvidia/cudnn/lib/libcudnn.so.9"}
    source = tmp_path / "cudnn.c"
    source.write_text("unsigned long cudnnGetVersion(void) { return 92400; }\n"
                      "int ncclGetVersion(int *version) { *version = 23007; return 0; }\n")
    library = str(tmp_path / "libcudnn.so.9")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    flags = {"CUDA_VISIBLE_DEVICES": "0", "XLA_FLAGS": "--xla_gpu_deterministic_ops=true --xla_gpu_cuda_data_dir=/x"}
    mine = record.of(("NVIDIA H200",), GPU, "bfloat16", {"libcudnn": library, "libnccl": library}, flags)
    assert mine["cuDNN"] == "9.24.0" and mine["NCCL"] == "2.30.7" and mine["driver"] == "570.1"
    assert mine["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=true"
    theirs = record.of(("NVIDIA A10",), GPU, "bfloat16", {}, {**flags, "CUDA_VISIBLE_DEVICES": "1"})
    assert record.differences(theirs, mine) == ["devices was NVIDIA A10, now NVIDIA H200"]  # NCCL: not known of one
    assert record.of(("CPU",), CPU, "float32") == {"devices": "CPU", "precision": "float32"}


def test_the_autotune_file_is_read_only_if_it_is_the_manifests(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "has_driver", lambda: True)
    kept = AutotuneFile(tmp_path / "autotune.textproto")
    kept._scratch = tmp_path / "scratch"
    assert kept.paths({}, True) == (None, kept._scratch) and kept.keep() is None
    kept._scratch.write_text("results {}\n")
    manifest = {"autotune": kept.keep()}
    assert kept.paths(manifest, False) == (tmp_path / "autotune.textproto", None)
    (tmp_path / "autotune.textproto").write_text("results {")  # cut off: XLA would end with an error
    assert kept.paths(manifest, True) == (None, kept._scratch)
    monkeypatch.setattr(machine, "has_driver", lambda: False)
    assert kept.paths(manifest, True) is None
