"""The CIFAR form of residual networks (He et al. 2015, arXiv:1512.03385, §4.2) with n = 3.

19 convolutions and the classifier, 0.27 M parameters. Three stages of 16, 32 and 64 filters, three blocks each.
Shortcuts have no parameters (option A): where a stage halves the image, they take every other pixel and pad the
channels with zeros. All operations are layers that an .h5 file can hold: Keras would save `x[:, ::2]` and
`keras.ops.pad`, and fail to load them.
"""

from keras import KerasTensor, layers

from trainer.models.blocks import activated, drop_rates, joined, normalized


def features(x: KerasTensor, drop_path: float = 0.0) -> KerasTensor:
    """A convolution, nine blocks, and the mean over the image."""
    x, rates = activated(_convolution(x, 16)), iter(drop_rates(9, drop_path))
    for filters in (16, 32, 64):
        for block in range(3):
            x = _block(x, filters, stride=2 if block == 0 and filters > 16 else 1, drop=next(rates))
    return layers.GlobalAveragePooling2D()(x)


def _convolution(x: KerasTensor, filters: int, stride: int = 1) -> KerasTensor:
    return layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)


def _block(x: KerasTensor, filters: int, stride: int, drop: float) -> KerasTensor:
    """Two 3×3 convolutions beside a shortcut."""
    residual = activated(_convolution(x, filters, stride))
    residual = normalized(_convolution(residual, filters))
    if stride > 1:
        before = (filters - x.shape[-1]) // 2
        after = filters - x.shape[-1] - before
        # With a window of one pixel and stride 2, the mean takes every other pixel; its gradient is not a scatter.
        # With channels_first, ZeroPadding2D takes the channels for the second spatial axis.
        x = layers.AveragePooling2D(1, strides=stride)(x)
        x = layers.ZeroPadding2D(((0, 0), (before, after)), data_format="channels_first")(x)
    return joined(x, residual, drop)
