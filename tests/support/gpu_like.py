"""The GPU's path on logical CPU devices: what MirroredStrategy and this program do where devices are GPUs.

In a test's own process: `make_runtime(replicas, kind=gpu_like.KIND)` inside `with gpu_like.no_merge_call():`. In other
processes: `environment(**gpu_like.ENVIRONMENT)` lets them import gpu_like_site/sitecustomize.py, which does the same.
"""

import contextlib
import dataclasses
import os
from pathlib import Path

from trainer.device_kind import GPU

# Between logical CPU devices collectives work and there is no NCCL; TensorFlow doesn't manage the host's memory.
KIND = dataclasses.replace(GPU, type="CPU", shares_device=True, communication="RING", manages_memory=False)

_HERE = Path(__file__).parent
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(map(str, (
    _HERE / "gpu_like_site", _HERE.parent.parent, _HERE.parent, _HERE)))}


@contextlib.contextmanager
def no_merge_call():
    """Lets `MirroredStrategy` update variables inside XLA as it does where all devices are GPUs.

    `MirroredStrategy._use_merge_call` asks for the devices' type, too; here it asks only whether XLA compiles. A
    collective that got into a compiled program would show here.
    """
    from tensorflow.python.distribute import mirrored_strategy
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import control_flow_util

    def use_merge_call(_):
        return not control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph())

    before = mirrored_strategy.MirroredExtended._use_merge_call
    mirrored_strategy.MirroredExtended._use_merge_call = use_merge_call
    try:
        yield
    finally:
        mirrored_strategy.MirroredExtended._use_merge_call = before
