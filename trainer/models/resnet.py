"""Residual networks (He, Zhang, Ren & Sun 2015, "Deep residual learning", arXiv:1512.03385)."""

from keras import layers


def resnet20(x):
    """The paper's CIFAR form (§4.2) with n = 3: 19 convolutions and the classifier, 0.27 M parameters.

    Three stages of 16, 32 and 64 filters, three blocks each. Shortcuts have no parameters (option A):
    where a stage halves the picture, they take every other pixel and pad the channels with zeros.
    """
    x = _convolution(x, 16)
    for filters in (16, 32, 64):
        for block in range(3):
            x = _block(x, filters, stride=2 if block == 0 and filters > 16 else 1)
    return layers.GlobalAveragePooling2D()(x)


def _convolution(x, filters, stride=1, activation=True):
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x) if activation else x


def _block(x, filters, stride):
    residual = _convolution(_convolution(x, filters, stride), filters, activation=False)
    if stride > 1:
        before = (filters - x.shape[-1]) // 2
        after = filters - x.shape[-1] - before
        # Layers, not `x[:, ::2, ::2]` and `ops.pad`, which an .h5 file can't hold. A window of one pixel takes
        # every other one; called channels_first, a padding of the second spatial axis pads the channels.
        x = layers.MaxPooling2D(1, strides=stride)(x)
        x = layers.ZeroPadding2D(((0, 0), (before, after)), data_format="channels_first")(x)
    return layers.ReLU()(layers.Add()([x, residual]))
