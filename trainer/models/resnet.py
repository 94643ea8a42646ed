"""Residual networks (He, Zhang, Ren & Sun 2015, "Deep residual learning", arXiv:1512.03385)."""

import keras
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
        missing = filters - x.shape[-1]
        x = keras.ops.pad(x[:, ::stride, ::stride], [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
    return layers.ReLU()(layers.Add()([x, residual]))
