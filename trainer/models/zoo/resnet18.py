"""The 18-layer network of He et al. 2015 (arXiv:1512.03385, table 1); 11.7 M parameters for 1,000 classes."""

from keras import KerasTensor

from trainer.models.blocks import basic_block, residual_stages


def features(x: KerasTensor, drop_path: float = 0.0) -> KerasTensor:
    """Two basic blocks in each of four stages."""
    return residual_stages(x, (2, 2, 2, 2), basic_block, drop_path)
