"""What a device's kind implies, as one value. No TensorFlow.

No other file asks whether a device is a GPU. Tests give logical CPU devices the value of GPUs, so that the whole
GPU path runs on machines without a GPU.
"""

import dataclasses
import types
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class DeviceKind:
    """How a run uses devices of a kind.

    Args:
        type: TensorFlow's name of the kind: GPU or CPU.
        prefetches: Pipelines end on the device, so that batches travel there while the step before them computes.
        resident_bytes: Images of up to this many bytes lie on the device unless `--input` says otherwise; then only
            ids travel.
        collectives: Replicas of one process sum by TensorFlow's collectives. Otherwise one device sums for all.
        shares_device: Whether these collectives also work between logical devices that share a physical one.
        communication: How gradients travel between workers: RING or NCCL, names of `CommunicationImplementation`.
        xla: What `--xla=auto` is.
        fuses: With XLA, a step is one program, or on several replicas one before the all-reduce and one after it: the
            update is computed in any case, and thrown away where something isn't finite, so that nothing waits for the
            host. Otherwise a branch skips the update.
        exact_float32: Whether products of float32 matrices are rounded as float32 is, and not as TF32.
        avoids_scatters: Whether a max pool's gradient, and RandAugment's histograms where XLA is on, are found by
            comparing, and not by a scatter.
        one_pass_moments: Whether, with XLA, batch normalization finds mean and variance in one pass over its input.
        manages_memory: Whether TensorFlow manages the device's memory. TensorFlow is told to take memory as it needs
            it, and logical devices get a share each.
        cuda: Whether CUDA does the work: its driver, libraries and flags decide the last bits.
        tells_of_bfloat16: Whether to tell of processors that multiply bfloat16, where float32 is what is taken unasked.
        processes_from: With so many devices in one process or more, a process for each is advised; 0: never.
        self_test_seconds: How long `doctor` waits for its tests.
        environment: Environment variables to set before TensorFlow is imported, where the user didn't set them.
    """

    type: str
    prefetches: bool
    resident_bytes: int
    collectives: bool
    shares_device: bool
    communication: str
    xla: bool
    fuses: bool
    exact_float32: bool
    avoids_scatters: bool
    one_pass_moments: bool
    manages_memory: bool
    cuda: bool
    tells_of_bfloat16: bool
    processes_from: int
    self_test_seconds: float
    environment: Mapping[str, str]


CPU = DeviceKind(
    type="CPU",
    prefetches=False,  # the batch is on the device already
    resident_bytes=0,  # a gather in the step takes the cores that it would free elsewhere
    collectives=False,  # summing on one device is as fast, and the order of its sums is fixed
    shares_device=True,
    communication="RING",
    xla=False,  # measured: half as fast on the reference CNN
    fuses=False,  # measured with XLA: slower, and large models compile twice as long
    exact_float32=True,
    avoids_scatters=False,  # measured without XLA: twice as fast for max pools, over ten times for histograms
    one_pass_moments=False,  # Keras's own bits
    manages_memory=False,
    cuda=False,
    tells_of_bfloat16=True,  # faster where the processor has it, but other figures than everyone else's
    processes_from=0,  # they would share the same cores
    self_test_seconds=120.0,
    environment=types.MappingProxyType({}))

GPU = DeviceKind(
    type="GPU",
    prefetches=True,
    resident_bytes=2**30,  # more could take the room of activations
    collectives=True,  # NCCL, by the links between the GPUs
    shares_device=False,  # NCCL refuses two ranks on one GPU
    communication="NCCL",  # left to itself, TensorFlow sends GPUs' gradients by gRPC
    xla=True,  # Keras 3 emits no fused batch norm: only XLA fuses it
    fuses=True,  # a branch's predicate travels to the host, which launches nothing until it is there
    exact_float32=False,  # TF32 from compute capability 8.0 on, unless --tf32=off
    avoids_scatters=True,  # XLA makes atomic additions of them; op determinism refuses a max pool's gradient
    one_pass_moments=True,  # XLA can't merge two passes of which one waits for the other
    manages_memory=True,  # left to itself, TensorFlow takes all, and a process that measures an export finds none
    cuda=True,
    tells_of_bfloat16=False,  # --precision=auto takes it
    processes_from=4,  # a process traces and compiles the step once for each of its devices
    self_test_seconds=1800.0,  # kernels are compiled at their first use, and convolutions tried out
    environment=types.MappingProxyType({
        # Threads of its own for each GPU's kernel launches: the input pipeline's can't hold them up.
        "TF_GPU_THREAD_MODE": "gpu_private",
        # The wheel brings some kernels as PTX only for compute capability 9.0; what the driver compiles of it is kept.
        "CUDA_CACHE_MAXSIZE": str(4 * 2**30)}))

KINDS: Mapping[str, DeviceKind] = {"CPU": CPU, "GPU": GPU}
