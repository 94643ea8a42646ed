"""The self-tests of `doctor` on the devices, each in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.distributed.devices import machine, record
from trainer.errors import DeviceError
from trainer.process.exit import say
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.distributed.runtime import Runtime

_TOLERANCES = {"float32": 2e-3, "bfloat16": 3e-2, "float16": 5e-3}  # relative; GPUs round float32 products to TF32


def describe(runtime: Runtime) -> list[str]:
    """Driver, GPUs and the compiler that XLA uses, a line each; empty on a machine without GPUs."""
    lines = [f"{gpu.name}: {gpu.memory_mib:,} MiB, driver {gpu.driver}"
             for gpu in machine.gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))]
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        lines.append(f"{gpu.name}: {details.get('device_name')}, compute capability "
                     f"{'.'.join(map(str, details.get('compute_capability', ())))}")
    if lines or runtime.kind.cuda:
        lines.append(f"CUDA of the driver: {machine.spoken(machine.driver_cuda())}")
        lines.append(f"ptxas: {_ptxas()}")
    if path := os.environ.get("LD_LIBRARY_PATH"):
        lines.append(f"LD_LIBRARY_PATH is {path}: libraries there come before TensorFlow's own")
    return lines


def _ptxas() -> str:
    """The compiler that XLA takes, from XLA's flag or else from PATH, and its version."""
    flag = re.search(r"--xla_gpu_cuda_data_dir=(\S+)", os.environ.get("XLA_FLAGS", ""))
    program = str(Path(flag[1]) / "bin/ptxas") if flag else shutil.which("ptxas")
    if not program:
        return "none; XLA can't compile for GPUs without it (pip install nvidia-cuda-nvcc-cu12)"
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program} can't be run: {error}"
    version = re.search(r"V(\d+\.\d+\.\d+)", output)
    return f"{program}, {version[1] if version else 'version unknown'}"


def all_reduce(runtime: Runtime) -> None:
    """Sums known numbers over all replicas, and prints how long that took.

    Raises:
        DeviceError: if the sum is wrong.
    """
    @tf.function(autograph=False)
    def reduce() -> tuple[tf.Tensor, ...]:
        def replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            local = tf.fill([2**20], tf.cast(context.replica_id_in_sync_group + 1, tf.float32))
            return context.all_reduce("SUM", local) if runtime.replicas > 1 else local

        return runtime.strategy.experimental_local_results(runtime.strategy.run(replica))

    reduce()
    began = time.perf_counter()
    sums = [float(tf.reduce_max(part)) for part in reduce()]
    seconds = time.perf_counter() - began
    wanted = runtime.replicas * (runtime.replicas + 1) / 2
    if any(value != wanted for value in sums):
        raise DeviceError(f"an all-reduce of 1 to {runtime.replicas} gave {sums}, not {wanted}",
                          "don't train on these devices together")
    say(f"all-reduce of 4 MiB between {runtime.replicas} replica{'s' if runtime.replicas > 1 else ''}: right, "
        f"{1e3 * seconds:.1f} ms")


def compile_convolution(runtime: Runtime) -> None:
    """One convolution with bias and ReLU and its gradient in each precision, as training has them, against NumPy.

    With XLA it fails on every GPU if cuDNN is too old.

    Raises:
        DeviceError: if a value or a gradient is wrong.
    """
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(8, 16, 16, 8)), rng.normal(size=(3, 3, 8, 16)) / 8
    wanted = _by_numpy(images, kernel)
    began = time.perf_counter()
    for precision, tolerance in _TOLERANCES.items():
        @tf.function(jit_compile=runtime.xla, autograph=False)
        def value_and_gradient(images: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[Any, ...]:
            with tf.GradientTape() as tape:
                tape.watch((kernel, bias))
                value = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "VALID") + bias)
                total = tf.reduce_sum(value)
            return value, *tape.gradient(total, (kernel, bias))

        with tf.device(runtime.devices[0]):
            results = value_and_gradient(*(tf.cast(array, precision) for array in (images, kernel, np.full(16, 0.1))))
        for what, result, exact in zip(("values", "kernel's gradient", "bias's gradient"), results, wanted,
                                       strict=True):
            error = np.max(np.abs(tf.cast(result, tf.float64).numpy() - exact)) / np.max(np.abs(exact))
            if not error < 10 * tolerance:
                raise DeviceError(f"a convolution in {precision} is wrong on {runtime.devices[0]}: its {what} differ "
                                  f"by {error:.2g} of the largest", "don't train on this device in this precision")
    say(f"convolution, bias, ReLU and gradients {'with' if runtime.xla else 'without'} XLA in "
        f"{', '.join(_TOLERANCES)}: right, {time.perf_counter() - began:.1f} s")
    for name, path in sorted(record.mapped_libraries().items()):
        say(f"  {name} in use: {path}")
    for name, version in runtime.record().items():
        if name in ("cuDNN", "NCCL"):
            say(f"  {name} {version}")


def _by_numpy(images: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, gradient of the kernel, gradient of the bias) in float64; the bias is 0.1 everywhere."""
    side = images.shape[1] - 2
    patches = np.stack([images[:, i:i + side, j:j + side] for i in range(3) for j in range(3)], 3)
    flat = patches.reshape(*patches.shape[:3], -1)
    values = np.maximum(flat @ kernel.reshape(-1, kernel.shape[-1]) + 0.1, 0)
    passed = (values > 0).astype(float)
    gradient = np.einsum("nijk,nijo->ko", flat, passed).reshape(kernel.shape)
    return values, gradient, passed.sum((0, 1, 2))


TESTS: dict[str, Callable[[Runtime], None]] = {"all_reduce": all_reduce, "compile": compile_convolution}
