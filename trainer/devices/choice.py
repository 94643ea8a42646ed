"""The devices of this process: chosen, split, and what they compute with."""

import dataclasses
import os
import subprocess

from trainer.devices.kind import KINDS, DeviceKind
from trainer.errors import DeviceError
from trainer.native import tf


@dataclasses.dataclass(frozen=True)
class Devices:
    """What a process computes with.

    Args:
        kind: What they are: a `DeviceKind`.
        names: What each physical device is, for people.
        precision: float32, bfloat16 or float16.
        xla: Whether steps are compiled with XLA.
    """

    kind: DeviceKind
    names: tuple[str, ...]
    precision: str
    xla: bool


def choose(config):
    """Chooses a run's devices and makes them ready. Once per process, before anything else of TensorFlow.

    Args:
        config: The run's `Config`.

    Returns:
        The `Devices`.

    Raises:
        DeviceError: if a device that was asked for isn't there.
    """
    gpus = choose_gpus(config.num_gpus)
    kind = KINDS["GPU" if gpus else "CPU"]
    split(gpus or tf.config.list_physical_devices("CPU")[:1], config.virtual_devices, kind)
    names = tuple(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus)
    return Devices(kind, names or ("CPU",), precision_for(config.precision, gpus),
                   config.xla == "on" or (config.xla == "auto" and kind.xla))


def gpu_count():
    """How many GPUs TensorFlow can see."""
    return len(tf.config.list_physical_devices("GPU"))


def choose_gpus(wanted):
    """Chooses GPUs, and hides all others from TensorFlow.

    Args:
        wanted: As `--num_gpus`.

    Returns:
        A list of physical devices; empty for the CPU.

    Raises:
        DeviceError: if there are fewer.
    """
    visible = tf.config.list_physical_devices("GPU")
    if wanted > len(visible):
        names = ", ".join(device.name for device in visible) or "none"
        limit = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f"; CUDA_VISIBLE_DEVICES is {limit!r}" if limit is not None else ""
        built = "" if tf.test.is_built_with_cuda() else "; this TensorFlow was built without CUDA"
        raise DeviceError(
            f"--num_gpus={wanted} asks for {wanted} GPU{'s' if wanted > 1 else ''}; visible to TensorFlow: "
            f"{names}{why}{built}",
            "lower --num_gpus (0 trains on the CPU), or make them visible: nvidia-smi shows the driver's view, and "
            "pip install 'tensorflow[and-cuda]' brings the CUDA libraries")
    chosen = visible if wanted < 0 else visible[:wanted]
    tf.config.set_visible_devices(chosen, "GPU")
    return chosen


def split(physical, parts, kind):
    """Splits each device into logical ones; what isn't split may grow its memory as needed.

    Args:
        physical: A list of physical devices.
        parts: As `--virtual_devices`.
        kind: Their `DeviceKind`.
    """
    for device in physical:
        if parts < 1:
            if kind.manages_memory:
                tf.config.experimental.set_memory_growth(device, True)
            continue
        limit = {"memory_limit": _gpu_memory_mib() // parts} if kind.manages_memory else {}
        tf.config.set_logical_device_configuration(
            device, [tf.config.LogicalDeviceConfiguration(**limit) for _ in range(parts)])


def _gpu_memory_mib():
    """Memory to share out among the logical devices of a GPU, leaving a tenth for CUDA itself."""
    try:
        answer = subprocess.run(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
                                capture_output=True, text=True, check=True, timeout=30).stdout
        return min(int(line) for line in answer.split()) * 9 // 10
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise DeviceError(f"--virtual_devices needs the GPU's memory size, and nvidia-smi did not tell it: {error}",
                          "leave --virtual_devices out, or put nvidia-smi on the PATH") from None


def precision_for(wanted, gpus):
    """float32, bfloat16 or float16.

    Args:
        wanted: As `--precision`.
        gpus: The physical devices, as `choose_gpus` returns them.
    """
    if wanted != "auto":
        return wanted
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    least = min(capabilities, default=(0, 0))
    return "bfloat16" if least >= (8, 0) else "float16" if least >= (7, 0) else "float32"
