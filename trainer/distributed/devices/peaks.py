"""The peak of GPUs' matrix units, for the share of it that training reaches (MFU, Chowdhery et al. 2022, "PaLM")."""

from __future__ import annotations

import re

# Dense products of bfloat16 or float16 that are summed in float32, in FLOP/s, from the makers' data sheets; the first
# name that is in a GPU's name as words counts.
_PEAKS = {"B200": 2250e12, "GH200": 989e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12,
          "A100": 312e12, "A30": 165e12, "A10": 125e12, "A10G": 70e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12,
          "V100-SXM2": 125e12, "T4": 65e12, "RTX 4090": 165e12, "RTX 3090": 71e12}
_HALF = ("bfloat16", "float16")


def peak_flops(name: str, precision: str) -> float | None:
    """A GPU's peak in FLOP/s.

    Args:
        name: Its product name, such as "NVIDIA A100-SXM4-80GB".
        precision: float32, bfloat16 or float16.

    Returns:
        The peak; None where it isn't known, and for float32, whose peak depends on how products are rounded.
    """
    if precision not in _HALF or "Laptop" in name:
        return None
    return next((peak for words, peak in _PEAKS.items() if re.search(rf"\b{re.escape(words)}\b", name)), None)
