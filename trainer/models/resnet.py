"""Residual networks (He, Zhang, Ren & Sun 2015, "Deep residual learning", arXiv:1512.03385).

Everything is a layer that an .h5 file can hold: `x[:, ::2]` and `keras.ops.pad` would save and fail to load.
"""

from keras import layers

_SMALL = 64  # images of up to this side get a stem that keeps their pixels


def resnet20(x):
    """The paper's CIFAR form (§4.2) with n = 3: 19 convolutions and the classifier, 0.27 M parameters.

    Three stages of 16, 32 and 64 filters, three blocks each. Shortcuts have no parameters (option A):
    where a stage halves the image, they take every other pixel and pad the channels with zeros.
    """
    x = _activated(_small_convolution(x, 16))
    for filters in (16, 32, 64):
        for block in range(3):
            x = _small_block(x, filters, stride=2 if block == 0 and filters > 16 else 1)
    return layers.GlobalAveragePooling2D()(x)


def resnet18(x):
    """The paper's 18-layer network (table 1): two basic blocks in each of four stages; 11.7 M parameters for 1,000
    classes."""
    return _large(x, (2, 2, 2, 2), _basic_block)


def resnet50(x):
    """The 50-layer network (table 1) in its v1.5, as MLPerf measures it: blocks halve the image in their 3×3
    convolution, not in the 1×1 before it; 25.6 M parameters for 1,000 classes."""
    return _large(x, (3, 4, 6, 3), _bottleneck)


def _large(x, blocks, block):
    x = _stem(x)
    for stage, count in enumerate(blocks):
        for number in range(count):
            x = block(x, 64 * 2**stage, stride=2 if number == 0 and stage > 0 else 1)
    return layers.GlobalAveragePooling2D()(x)


def _stem(x):
    """A 7×7 convolution and a max pool, each of stride 2; a 3×3 convolution alone for images of up to 64 pixels."""
    if min(x.shape[1:3]) <= _SMALL:
        return _activated(_convolution(x, 64, 3))
    x = _activated(_convolution(x, 64, 7, stride=2))
    return layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))  # after a ReLU nothing is under 0


def _basic_block(x, filters, stride):
    residual = _activated(_convolution(x, filters, 3, stride))
    residual = _normalized(_convolution(residual, filters, 3), scale=0)
    return _joined(_projected(x, filters, stride), residual)


def _bottleneck(x, filters, stride):
    residual = _activated(_convolution(x, filters, 1))
    residual = _activated(_convolution(residual, filters, 3, stride))
    residual = _normalized(_convolution(residual, 4 * filters, 1), scale=0)
    return _joined(_projected(x, 4 * filters, stride), residual)


def _projected(x, filters, stride):
    """The shortcut: as it is where shapes agree, else a 1×1 convolution (option B)."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return _normalized(_convolution(x, filters, 1, stride))


def _convolution(x, filters, size, stride=1):
    """A convolution padded alike on all sides, also where it strides."""
    if size > 1 and stride > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    return layers.Conv2D(filters, size, strides=stride, padding="same" if stride == 1 else "valid", use_bias=False,
                         kernel_initializer="he_normal")(x)


def _normalized(x, scale=1):
    """Batch norm; with scale 0 in a block's last one, training begins with blocks that change nothing (Goyal et al.
    2017, arXiv:1706.02677, §5.1)."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5,
                                     gamma_initializer="ones" if scale else "zeros")(x)


def _activated(x):
    return layers.ReLU()(_normalized(x))


def _joined(shortcut, residual):
    return layers.ReLU()(layers.Add()([shortcut, residual]))


def _small_convolution(x, filters, stride=1):
    return layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)


def _small_block(x, filters, stride):
    residual = _activated(_small_convolution(x, filters, stride))
    residual = _normalized(_small_convolution(residual, filters))
    if stride > 1:
        before = (filters - x.shape[-1]) // 2
        after = filters - x.shape[-1] - before
        # A window of one pixel takes every other one; a mean's gradient is no scatter. Called channels_first, a
        # padding of the second spatial axis pads the channels.
        x = layers.AveragePooling2D(1, strides=stride)(x)
        x = layers.ZeroPadding2D(((0, 0), (before, after)), data_format="channels_first")(x)
    return _joined(x, residual)
