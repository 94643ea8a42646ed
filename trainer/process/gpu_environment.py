"""What must be in the environment before TensorFlow is imported. No TensorFlow.

XLA flags that TensorFlow doesn't know end the process: the flags here are those of 2.21, and tests/test_gpu_box.py
tries each. What the user has set stays as it is.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from trainer.device_kind import GPU

# The same order of sums in every call and process, if machine and number of GPUs are the same. NVLink's own sums
# (NVLS) may differ from call to call (NVIDIA/nccl#1497).
_REPRODUCIBLE_NCCL = {"NCCL_NVLS_ENABLE": "0", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple"}


def prepare(environ: MutableMapping[str, str] = os.environ, deterministic: bool = False,
            autotune: tuple[Path | None, Path | None] | None = None) -> None:
    """Sets what isn't set yet; may be called again, with more to set, until TensorFlow is imported.

    Args:
        environ: The environment to change.
        deterministic: As `--deterministic`.
        autotune: (file with the kernel choices of an earlier start, file to write this start's to), each or both None.
    """
    for name, value in {**GPU.environment, **(_REPRODUCIBLE_NCCL if deterministic else {})}.items():
        environ.setdefault(name, value)
    flags = []
    if toolkit := _toolkit():
        # XLA would take the first ptxas in PATH, and 12.0 to 12.6.2 miscompile for Hopper.
        flags.append(f"--xla_gpu_cuda_data_dir={toolkit}")
    if deterministic:
        # Not `enable_op_determinism`, which refuses every gradient of a max pool. No kernel is chosen by timing.
        flags.append("--xla_gpu_deterministic_ops=true")
    elif autotune:
        load_from, dump_to = autotune
        flags += [f"--xla_gpu_load_autotune_results_from={load_from}"] if load_from else []
        flags += [f"--xla_gpu_dump_autotune_results_to={dump_to}"] if dump_to else []
    given = environ.get("XLA_FLAGS", "")
    more = [flag for flag in flags if flag.split("=")[0] not in given]
    if more:
        environ["XLA_FLAGS"] = " ".join([given, *more]).strip()


def names() -> tuple[str, ...]:
    """The names of all that `prepare` may set."""
    return (*GPU.environment, *_REPRODUCIBLE_NCCL, "XLA_FLAGS")


def _toolkit() -> Path | None:
    """pip's folder of CUDA's compiler, with ptxas in it; None where it isn't installed."""
    spec = importlib.util.find_spec("nvidia")
    for path in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(path) / "cuda_nvcc"
        if (folder / "bin/ptxas").exists() and " " not in str(folder):  # XLA_FLAGS knows no quotes
            return folder
    return None


def kernel_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder in which the driver keeps kernels that it compiled (CUDA's own rule)."""
    return Path(environ.get("CUDA_CACHE_PATH") or Path(environ.get("HOME", "/")) / ".nv/ComputeCache")
