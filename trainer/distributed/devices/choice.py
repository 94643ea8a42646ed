"""The devices of this process: which are used, how they are split, and what they compute in."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.device_kind import KINDS, DeviceKind
from trainer.distributed.devices import compatibility, machine
from trainer.errors import DeviceError
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.config import Config


@dataclasses.dataclass(frozen=True)
class Devices:
    """The chosen devices, and what they compute in.

    Args:
        kind: What the kind of the devices implies.
        names: The human-readable name of each physical device.
        precision: float32, bfloat16 or float16.
        xla: Whether steps are compiled with XLA.
        warnings: What the user should know about the devices, a sentence each.
    """

    kind: DeviceKind
    names: tuple[str, ...]
    precision: str
    xla: bool
    warnings: tuple[str, ...] = ()


def choose(config: Config) -> Devices:
    """Chooses a run's devices and prepares them. Once per process, before anything else of TensorFlow.

    Returns:
        The `Devices`.

    Raises:
        DeviceError: if a device that was asked for is missing, or can't work.
    """
    gpus = choose_gpus(1 if config.strategy == "one_device" and config.num_gpus < 0 and gpu_count() else
                       config.num_gpus)
    kind = KINDS["GPU" if gpus else "CPU"]
    xla = config.xla == "on" or (config.xla == "auto" and kind.xla)
    warnings = (compatibility.check(_capabilities(gpus), machine.driver_cuda(), xla) if gpus else
                _unused_gpus(config.num_gpus))
    if config.deterministic and kind.cuda:
        warnings.append("--deterministic: no kernel is chosen by timing, so steps may take longer (not measured)")
    names = tuple(_detail(gpu, "device_name", gpu.name) for gpu in gpus) or ("CPU",)
    split(gpus or tf.config.list_physical_devices("CPU")[:1], config.virtual_devices, kind)
    tf.config.experimental.enable_tensor_float_32_execution(config.tf32 != "off")
    if config.tf32 != "auto":
        kind = dataclasses.replace(kind, exact_float32=kind.exact_float32 or config.tf32 == "off")
    return Devices(kind, names, precision_for(config.precision, gpus), xla, tuple(warnings))


def _detail(gpu: tf.config.PhysicalDevice, name: str, default: Any) -> Any:
    return tf.config.experimental.get_device_details(gpu).get(name, default)


def _capabilities(gpus: Sequence[tf.config.PhysicalDevice]) -> dict[str, tuple[int, int]]:
    """A GPU's name to its compute capability, without GPUs whose capability TensorFlow doesn't know."""
    capabilities = {_detail(gpu, "device_name", gpu.name): _detail(gpu, "compute_capability", None) for gpu in gpus}
    return {name: (capability[0], capability[1]) for name, capability in capabilities.items() if capability}


def _unused_gpus(wanted: int) -> list[str]:
    """Warnings of a run that wants all GPUs and finds none.

    Args:
        wanted: As `--num_gpus`.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted == 0 or (visible is not None and visible.strip() in ("", "-1")):
        return []  # none are wanted
    warning = compatibility.why_unused([gpu.name for gpu in machine.gpus(visible)], machine.has_driver())
    return [warning] if warning else []


def gpu_count() -> int:
    """Number of GPUs that TensorFlow can see."""
    return len(tf.config.list_physical_devices("GPU"))


def choose_gpus(wanted: int) -> list[tf.config.PhysicalDevice]:
    """Chooses GPUs, and hides all others from TensorFlow.

    Args:
        wanted: As `--num_gpus`.

    Returns:
        The chosen GPUs; empty for the CPU.

    Raises:
        DeviceError: if there are fewer.
    """
    visible = tf.config.list_physical_devices("GPU")
    if wanted > len(visible):
        names = ", ".join(device.name for device in visible) or "none"
        limit = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f"; CUDA_VISIBLE_DEVICES is {limit!r}" if limit is not None else ""
        built = "" if tf.test.is_built_with_cuda() else "; this TensorFlow was built without CUDA"
        known = [gpu.name for gpu in machine.gpus(limit)]
        driver = f"; the driver's view: {', '.join(known)}" if known else ""
        raise DeviceError(
            f"--num_gpus={wanted} asks for {wanted} GPU{'s' if wanted > 1 else ''}; visible to TensorFlow: "
            f"{names}{why}{driver}{built}",
            "lower --num_gpus (0 trains on the CPU), or make them visible: nvidia-smi shows the driver's view, and "
            "pip install 'lockstep-trainer[cuda]' brings the CUDA libraries")
    chosen = visible if wanted < 0 else visible[:wanted]
    tf.config.set_visible_devices(chosen, "GPU")
    return chosen


def split(physical: Sequence[tf.config.PhysicalDevice], parts: int, kind: DeviceKind) -> None:
    """Splits each device into logical devices. For a device that isn't split, TensorFlow takes memory as it needs it.

    Args:
        physical: The physical devices.
        parts: As `--virtual_devices`.
        kind: What the kind of the devices implies.
    """
    for device in physical:
        if parts < 1:
            if kind.manages_memory:
                tf.config.experimental.set_memory_growth(device, True)
            continue
        limit = ({"memory_limit": _memory_mib(_detail(device, "device_name", device.name)) // parts}
                 if kind.manages_memory else {})
        tf.config.set_logical_device_configuration(
            device, [tf.config.LogicalDeviceConfiguration(**limit) for _ in range(parts)])


def _memory_mib(name: str) -> int:
    """Memory for the logical devices of a GPU together, in MiB; a tenth of the GPU's memory is left for CUDA itself.

    Args:
        name: CUDA's name of the GPU; the name of a part of a GPU (MIG) contains the size of the part.
    """
    if part := re.search(r"MIG \d+g\.(\d+)gb", name):
        return int(part[1]) * 1024 * 9 // 10
    sizes = [gpu.memory_mib for gpu in machine.gpus(os.environ.get("CUDA_VISIBLE_DEVICES")) if gpu.name == name]
    if not sizes:
        raise DeviceError(f"--virtual_devices needs the memory size of {name}, and nvidia-smi did not tell it",
                          "leave --virtual_devices out, or put nvidia-smi on the PATH")
    return min(sizes) * 9 // 10


def precision_for(wanted: str, gpus: Sequence[tf.config.PhysicalDevice]) -> str:
    """The precision that a run computes in: float32, bfloat16 or float16.

    Args:
        wanted: As `--precision`.
        gpus: The chosen GPUs; empty for the CPU.
    """
    if wanted != "auto":
        return wanted
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    least = min(capabilities, default=(0, 0))
    return "bfloat16" if least >= (8, 0) else "float16" if least >= (7, 0) else "float32"
