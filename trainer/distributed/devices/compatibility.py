"""Which GPUs TensorFlow 2.21's wheel can use, checked before the first kernel. No TensorFlow.

The wheel is built for CUDA 12.5. It has machine code up to compute capability 8.9, for 9.0 of its larger kernels only;
the rest is PTX of version 8.5, which a driver before CUDA 12.5 can't read. XLA writes PTX of that version, too, and
compute capability 10.0 (Blackwell) needs a newer one: LLVM then ends the process. cuDNN from 9.11 on, which XLA's
convolutions need, has no kernels for 7.0 (Volta).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.distributed.devices.machine import spoken
from trainer.errors import DeviceError
from trainer.process.gpu_environment import kernel_cache

_PTX_NEEDS_CUDA = 12050
_VOLTA, _TURING, _HOPPER, _BLACKWELL = (7, 0), (7, 5), (9, 0), (10, 0)


def check(gpus: Mapping[str, tuple[int, int]], cuda: int | None, xla: bool) -> list[str]:
    """Makes sure that GPUs can work before the first kernel.

    Args:
        gpus: Name to compute capability, (major, minor).
        cuda: The CUDA version of the driver, as `machine.driver_cuda` returns it; None if it isn't known.
        xla: Whether steps are compiled with XLA.

    Returns:
        Warnings, a sentence each.

    Raises:
        DeviceError: if a GPU can't work.
    """
    warnings = []
    for name, capability in sorted(gpus.items()):
        version = ".".join(map(str, capability))
        if capability >= _HOPPER and cuda is not None and cuda < _PTX_NEEDS_CUDA:
            raise DeviceError(f"{name} (compute capability {version}) needs a driver of CUDA {spoken(_PTX_NEEDS_CUDA)} "
                              f"or newer for TensorFlow 2.21; this one's is {spoken(cuda)}",
                              "install driver 555 or newer, or train on another machine")
        if capability >= _BLACKWELL and xla:
            raise DeviceError(f"TensorFlow 2.21's XLA doesn't know {name} (compute capability {version}): it would end "
                              "the process", "add --xla=off, which may work, or use a GPU of capability 9.0 or less")
        if capability < _TURING:
            warnings.append(f"{name} (compute capability {version}): today's cuDNN has no kernels for GPUs before "
                            "Turing (7.5), so convolutions may fail; if they do, train on another GPU")
        elif capability >= _HOPPER and not kernel_cache().exists():
            warnings.append(f"{name}: TensorFlow brings some kernels as text for this GPU, so the first start compiles "
                            f"them, which takes longer; they are kept in {kernel_cache()}")
    return warnings


def why_unused(names: Sequence[str], has_driver: bool) -> str | None:
    """Why TensorFlow sees no GPU on a machine that has GPUs.

    Args:
        names: nvidia-smi's names of the GPUs that this process may use.
        has_driver: Whether NVIDIA's driver is loaded.

    Returns:
        A warning with its fix, or None if the machine has no GPU.
    """
    if not names and not has_driver:
        return None
    evidence = ", ".join(sorted(set(names))) or "NVIDIA's driver is loaded"
    return (f"this machine has GPUs ({evidence}), and TensorFlow can't use them: training on the CPU. CUDA's libraries "
            "are missing or don't fit; fix: pip install '.[cuda]' in a checkout, else 'lockstep-trainer[cuda]', and "
            "unset LD_LIBRARY_PATH; python -m trainer doctor says more")
