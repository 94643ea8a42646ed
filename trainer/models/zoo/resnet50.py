"""The 50-layer network of He et al. 2015 (arXiv:1512.03385, table 1) in its v1.5, as MLPerf measures it.

Blocks halve the image in their 3×3 convolution, not in the 1×1 convolution before it. 25.6 M parameters for 1,000
classes.
"""

from keras import KerasTensor

from trainer.models.blocks import bottleneck, residual_stages


def features(x: KerasTensor, drop_path: float = 0.0) -> KerasTensor:
    """3, 4, 6 and 3 bottleneck blocks in four stages."""
    return residual_stages(x, (3, 4, 6, 3), bottleneck, drop_path)
