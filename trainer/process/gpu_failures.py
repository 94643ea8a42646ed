"""What TensorFlow, XLA, cuDNN and NCCL say when a GPU fails, and what that means. No TensorFlow."""

from __future__ import annotations

import re

from trainer.errors import DeviceError, UsageError

_CUDNN = "pip install -U 'nvidia-cudnn-cu12>=9.24,<10', in an environment without PyTorch, and unset LD_LIBRARY_PATH"
_COMPILER = "pip install -U nvidia-cuda-nvcc-cu12, or reinstall: pip install 'lockstep-trainer[cuda]'"
_DRIVER = "install a driver of CUDA 12.5 or newer (555 and up); python -m trainer doctor shows this one's"
_CHECK = "check nvidia-smi, then run the same command again"
_SMALLER = ("end what else uses the GPU's memory (nvidia-smi lists it), use more GPUs, or train with a lower "
            "--batch_size (in another --model_dir: a run with checkpoints keeps its own)")
_NCCL = ("NCCL_DEBUG=WARN prints more; use --shm-size=1g --ulimit memlock=-1 in containers; on hosts with an IOMMU "
         "NCCL_P2P_DISABLE=1 tells whether the IOMMU is the cause; then run the same command again")

# The first pattern that matches counts: (pattern, exception, what it means, fix).
_TABLE: tuple[tuple[str, type[DeviceError] | type[UsageError], str, str], ...] = (
    (r"CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|[Oo]ut of memory"
     r"|OOM when allocating|failed to allocate", UsageError, "out of memory", _SMALLER),
    (r"Autotuner could not find any supported configs|DNN library (?:is not found|initialization failed)"
     r"|CUDNN_STATUS_|[Ll]oaded runtime CuDNN library|[Nn]o valid config found for cudnn", DeviceError,
     "cuDNN doesn't fit this TensorFlow", _CUDNN),
    (r"No PTX compilation provider|ptxas (?:fatal|returned|exited|not found|version)|[Cc]ouldn't (?:get|invoke) ptxas"
     r"|libdevice(?:\.10\.bc)? (?:is )?(?:required|not found)|[Cc]an't find libdevice", DeviceError,
     "CUDA's compiler is missing or doesn't fit", _COMPILER),
    (r"CUDA_ERROR_UNSUPPORTED_PTX_VERSION|CUDA_ERROR_INVALID_PTX|CUDA_ERROR_NO_BINARY_FOR_GPU"
     r"|CUDA_ERROR_INVALID_HANDLE|CUDA_ERROR_INVALID_IMAGE", DeviceError,
     "the GPU's driver can't read TensorFlow's kernels", _DRIVER),
    (r"CUBLAS_STATUS_|cublas\w* (?:create|failed)", DeviceError, "cuBLAS failed", _CHECK),
    (r"CUDA_ERROR_ECC|CUDA_ERROR_DEVICE_UNAVAILABLE|CUDA_ERROR_SYSTEM|device is lost|GPU has fallen off|"
     r"CUDA_ERROR_LAUNCH_FAILED|CUDA_ERROR_ILLEGAL|CUDA_ERROR", DeviceError, "a GPU failed", _CHECK),
    (r"NCCL|\bnccl[A-Z]", DeviceError, "NCCL failed between the GPUs", _NCCL),
)


def name(text: str, reason: str) -> DeviceError | UsageError | None:
    """The failure that an error message describes.

    Args:
        text: The whole message.
        reason: The line of it that says most.

    Returns:
        The failure, or None if the message is not about a GPU.
    """
    for pattern, kind, meaning, fix in _TABLE:
        if match := re.search(pattern, text):
            line = reason if re.search(pattern, reason) else _line_at(text, match.start())
            return kind(f"{meaning}: {line}", fix)
    return None


def _line_at(text: str, position: int) -> str:
    """The line of a text that has a position in it; at most 200 characters."""
    begin, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
    return text[begin:end if end >= 0 else None].strip()[:200]
