"""The two small reference CNNs: 3×3 valid convolutions with ReLU, 2×2 max pools, and a dense layer of 64."""

from keras import layers


def cnn3(x):
    """Conv 32 – pool – Conv 64 – pool – Conv 64 – flatten – Dense 64; 122,570 parameters on CIFAR-10."""
    x = _convolution(64)(_pooled(64)(_pooled(32)(x)))
    return layers.Dense(64, activation="relu")(layers.Flatten()(x))


def cnn2(x):
    """Conv 32 – pool – Conv 64 – pool – flatten – Dense 64; 167,562 parameters on CIFAR-10."""
    x = _pooled(64)(_pooled(32)(x))
    return layers.Dense(64, activation="relu")(layers.Flatten()(x))


def _convolution(filters):
    return layers.Conv2D(filters, 3, activation="relu")


def _pooled(filters):
    return lambda x: layers.MaxPooling2D()(_convolution(filters)(x))
