"""What a test's processes are started with. Imports no TensorFlow."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**more):
    """The environment of a test's processes: without an outer cluster's variables and without GPUs."""
    cleaned = {name: value for name, value in os.environ.items()
               if name not in ("TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL") and not name.startswith("SLURM_")}
    return {**cleaned, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/support'}",
            "CUDA_VISIBLE_DEVICES": "-1", **more}
