"""Devices, strategy, precision and XLA: what a run computes on."""

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import tempfile

from trainer.errors import BusyError, DeviceError, StorageError, UsageError, WorkerError

# Threads of its own for each GPU's kernel launches; read when the devices start.
os.environ.setdefault("TF_GPU_THREAD_MODE", "gpu_private")
# The wheel brings PTX for GPUs of compute capability 9.0: what the driver compiles of it must be kept.
os.environ.setdefault("CUDA_CACHE_MAXSIZE", str(4 * 2**30))


@contextlib.contextmanager
def _without_native_chatter():
    """Keeps back what native code writes to stderr, unless the block fails.

    TensorFlow's libraries log lines while they are loaded, whatever TF_CPP_MIN_LOG_LEVEL says, and
    nothing in them is for the user to act on. Somebody who sets that variable wants to see them.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


with _without_native_chatter():
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What this process computes on, and its part in the whole.

    Args:
        strategy: The `tf.distribute.Strategy`.
        devices: Names of this process's devices, one per local replica.
        replicas: Replicas of the whole job.
        worker: This process's number among the workers, from 0; 0 is the chief.
        workers: How many there are.
        precision: float32, bfloat16 or float16.
        xla: Whether steps are compiled with XLA.
    """

    strategy: tf.distribute.Strategy
    devices: tuple[str, ...]
    replicas: int
    worker: int
    workers: int
    precision: str
    xla: bool

    @property
    def is_chief(self):
        """Whether this process writes what the job writes."""
        return self.worker == 0

    @property
    def replica_numbers(self):
        """The numbers, in the whole job, of this process's replicas."""
        local = len(self.devices)
        return range(self.worker * local, (self.worker + 1) * local)

    @property
    def on_gpu(self):
        """Whether the replicas are on GPUs."""
        return ":GPU:" in self.devices[0]

    def sentence(self):
        """The devices, for people."""
        kind = "GPU" if self.on_gpu else "CPU"
        logical = "logical " if self.replicas > 1 and kind == "CPU" and self.workers == 1 else ""
        places = f" on {self.workers} workers" if self.workers > 1 else ""
        count = self.replicas
        return (f"{count} {logical}{kind}{'s' if count > 1 else ''}{places}, {self.precision}, "
                f"XLA {'on' if self.xla else 'off'}")

    def agree(self, values):
        """Adds up whole numbers over all workers; each gets the sums. One small all-reduce.

        Args:
            values: A list of ints, of the same length on every worker.

        Returns:
            A list of ints.
        """
        if self.workers == 1:
            return list(values)
        # Every local replica adds the same, so the sum counts each worker once per replica.
        summed = self._sum(tf.constant(values, tf.int64)).numpy()
        return [int(value) // len(self.devices) for value in summed]

    def _sum(self, values):
        if "sum" not in _FUNCTIONS:
            def replica_sum(x):
                # The identity gives it a place: an argument has no device, and the reduction asks for one.
                return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(x))
            _FUNCTIONS["sum"] = tf.function(lambda x: self.strategy.experimental_local_results(
                self.strategy.run(replica_sum, args=(x,)))[0])
        return _FUNCTIONS["sum"](values)


_FUNCTIONS = {}  # traced once per process


def as_ours(error):
    """What an error of TensorFlow's is in our terms, if a user or the world can cause it.

    Args:
        error: Any exception.

    Returns:
        A `LockstepError`, or None.
    """
    if not isinstance(error, tf.errors.OpError):
        return None
    said, text = reason(error), error.message
    if "No space left" in text or "Disk quota" in text or isinstance(error, tf.errors.PermissionDeniedError):
        return StorageError(f"writing failed: {said}", "make room or mend the folder; earlier checkpoints are kept")
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return UsageError(f"out of memory: {said}", "lower --batch_size, or use more GPUs")
    if "gRPC server" in text:
        return BusyError(f"this worker's port can't be used: {said}", "end what uses it, or name another in TF_CONFIG")
    if isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
                          tf.errors.CancelledError)):
        return WorkerError(f"another worker is gone: {said}",
                           "start all workers again; they go on from the last checkpoint")
    if "CUDA_ERROR" in text or "device is lost" in text:
        return DeviceError(f"a GPU failed: {said}", "look at nvidia-smi, then run the same command again")
    return None


def start(config, cluster):
    """Makes the devices ready. Once per process, before anything else of TensorFlow.

    Args:
        config: The run's `Config`.
        cluster: The `Cluster`.

    Returns:
        The `Runtime`.

    Raises:
        DeviceError: if a device that was asked for isn't there.
        UsageError: if there are more devices than the strategy takes.
    """
    if cluster.distributed and config.virtual_devices > 1:
        raise UsageError("several workers take a CPU or whole GPUs each; received "
                         f"--virtual_devices={config.virtual_devices}", "leave --virtual_devices out")
    gpus = _choose_gpus(config.num_gpus)
    physical = gpus or tf.config.list_physical_devices("CPU")[:1]
    _split(physical, config.virtual_devices)
    kind = "GPU" if gpus else "CPU"
    strategy, devices = _strategy(config, cluster, kind)
    if config.strategy == "one_device" and strategy.num_replicas_in_sync != 1:
        raise UsageError(f"--strategy=one_device has one replica; {len(devices)} devices were chosen",
                         "add --num_gpus=1")
    return Runtime(strategy=strategy, devices=devices, replicas=strategy.num_replicas_in_sync,
                   worker=cluster.worker, workers=cluster.workers, precision=_precision(config.precision, gpus),
                   xla=config.xla == "on" or (config.xla == "auto" and bool(gpus)))


def gpu_count():
    """How many GPUs TensorFlow can see."""
    return len(tf.config.list_physical_devices("GPU"))


def _choose_gpus(wanted):
    """The GPUs to use, all others hidden from TensorFlow; empty for the CPU."""
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


def _split(physical, parts):
    """Splits each device into logical ones; GPUs that aren't split grow their memory as needed."""
    for device in physical:
        if parts < 1:
            if device.device_type == "GPU":
                tf.config.experimental.set_memory_growth(device, True)
            continue
        limit = {"memory_limit": _gpu_memory_mib() // parts} if device.device_type == "GPU" else {}
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


def _strategy(config, cluster, kind):
    """(strategy, names of this process's devices)."""
    if cluster.distributed:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        return strategy, tuple(name[name.index("/device:"):] for name in strategy.extended.worker_devices)
    names = [f"/device:{kind}:{number}" for number in range(len(tf.config.list_logical_devices(kind)))]
    if config.strategy == "one_device" or (config.strategy == "auto" and len(names) == 1):
        return tf.distribute.OneDeviceStrategy(names[0]), (names[0],)
    # NCCL refuses two replicas on one GPU; a reduction on one device serves logical devices of both kinds.
    shared = kind == "CPU" or config.virtual_devices > 1
    reduction = tf.distribute.ReductionToOneDevice() if shared else None
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction), tuple(names)


def _precision(wanted, gpus):
    if wanted != "auto":
        return wanted
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    least = min(capabilities, default=(0, 0))
    return "bfloat16" if least >= (8, 0) else "float16" if least >= (7, 0) else "float32"


def reason(error):
    """What a TensorFlow error says went wrong, without the stack that it puts around that.

    Args:
        error: A `tf.errors.OpError`.

    Returns:
        A line of at most 200 characters.
    """
    lines = [line.strip() for line in error.message.splitlines()]
    stack = [number for number, line in enumerate(lines) if line.startswith("File ")]
    said = [line for line in lines[stack[-1] + 1 if stack else 0:] if line and line != "Graph execution error:"]
    text = said[0] if said else type(error).__name__
    return re.sub(r"\{\{.*?\}\} ?|\[Op:.*?\]", "", text)[:200].strip()
