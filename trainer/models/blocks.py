"""What the networks in zoo/ are made of.

Everything is a layer that an .h5 file can hold. Residual blocks: He, Zhang, Ren & Sun 2015, arXiv:1512.03385.
"""

from keras import layers

_SMALL = 64  # images of up to this side get a stem that keeps their pixels


def convolution(x, filters):
    """A 3×3 valid convolution with bias and ReLU."""
    return layers.Conv2D(filters, 3, activation="relu")(x)


def pooled_convolution(x, filters):
    """`convolution`, then a 2×2 max pool."""
    return layers.MaxPooling2D()(convolution(x, filters))


def residual_stages(x, blocks, block):
    """The stem, four stages that double the filters from 64 on, and the mean over the image.

    Args:
        x: The images.
        blocks: How many blocks each stage has.
        block: A function of (x, filters, stride).
    """
    x = _stem(x)
    for stage, count in enumerate(blocks):
        for index in range(count):
            x = block(x, 64 * 2**stage, stride=2 if index == 0 and stage > 0 else 1)
    return layers.GlobalAveragePooling2D()(x)


def _stem(x):
    """A 7×7 convolution and a max pool, each of stride 2; a 3×3 convolution alone for images of up to 64 pixels."""
    if min(x.shape[1:3]) <= _SMALL:
        return activated(_unbiased(x, 64, 3))
    x = activated(_unbiased(x, 64, 7, stride=2))
    return layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))  # after a ReLU nothing is under 0


def basic_block(x, filters, stride):
    """Two 3×3 convolutions beside a shortcut (figure 5, left)."""
    residual = activated(_unbiased(x, filters, 3, stride))
    residual = normalized(_unbiased(residual, filters, 3), scale=0)
    return joined(_projected(x, filters, stride), residual)


def bottleneck(x, filters, stride):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut (figure 5, right); the stride is the 3×3's."""
    residual = activated(_unbiased(x, filters, 1))
    residual = activated(_unbiased(residual, filters, 3, stride))
    residual = normalized(_unbiased(residual, 4 * filters, 1), scale=0)
    return joined(_projected(x, 4 * filters, stride), residual)


def _projected(x, filters, stride):
    """The shortcut: as it is where shapes agree, else a 1×1 convolution (option B)."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return normalized(_unbiased(x, filters, 1, stride))


def _unbiased(x, filters, size, stride=1):
    """A convolution padded alike on all sides, also where it strides."""
    if size > 1 and stride > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    return layers.Conv2D(filters, size, strides=stride, padding="same" if stride == 1 else "valid", use_bias=False,
                         kernel_initializer="he_normal")(x)


def normalized(x, scale=1):
    """Batch norm; with scale 0 in a block's last one, training begins with blocks that change nothing (Goyal et al.
    2017, arXiv:1706.02677, §5.1)."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5,
                                     gamma_initializer="ones" if scale else "zeros")(x)


def activated(x):
    """Batch norm, then ReLU."""
    return layers.ReLU()(normalized(x))


def joined(shortcut, residual):
    """Their sum, then ReLU."""
    return layers.ReLU()(layers.Add()([shortcut, residual]))
