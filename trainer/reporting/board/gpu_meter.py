"""Memory, use and power of GPUs, by NVIDIA's management library (the extra `gpu-meter`).

Without the extra, and on CPUs, the figures are absent; it is never an error.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from trainer.distributed.devices import machine


class GpuMeter:
    """Reads the first GPUs of this machine that this process may use.

    The first reading finds them, which takes a tenth of a second or more: it belongs into a thread beside the training.

    Args:
        count: How many GPUs the process uses; 0 on CPUs.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._library: Any = None
        self._handles: list[Any] | None = None

    def read(self) -> dict[str, float]:
        """What the GPUs do now, other processes' work included.

        Returns:
            gpu_memory_gb, the most of a GPU; gpu_use, the mean share of the last second or less in which something ran;
            gpu_watts, the sum. What the library or a GPU doesn't tell is left out.
        """
        if self._handles is None:
            self._handles = self._find() if self._count else []
        library = self._library
        memory = self._ask(lambda gpu: library.nvmlDeviceGetMemoryInfo(gpu).used / 1e9)
        use = self._ask(lambda gpu: library.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
        watts = self._ask(lambda gpu: library.nvmlDeviceGetPowerUsage(gpu) / 1e3)
        return {**({"gpu_memory_gb": max(memory)} if memory else {}),
                **({"gpu_use": sum(use) / len(use)} if use else {}),
                **({"gpu_watts": sum(watts)} if watts else {})}

    def _find(self) -> list[Any]:
        """The GPUs' handles; [] without the module or the driver."""
        with contextlib.suppress(Exception):
            import pynvml  # pyright: ignore[reportMissingImports]

            pynvml.nvmlInit()
            self._library = pynvml
            gpus = machine.gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))[:self._count]
            return [pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in gpus]
        return []

    def _ask(self, question: Any) -> list[float]:
        """The answer of each GPU; [] if one has none, such as a part of a GPU (MIG)."""
        with contextlib.suppress(Exception):  # the library's errors are classes of its own
            return [float(question(gpu)) for gpu in self._handles or []]
        return []
