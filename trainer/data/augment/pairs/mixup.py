"""The mean of both images, weighted by Beta(0.2, 0.2) (Zhang et al. 2018). Uses random number 6."""

import numpy as np

from trainer.data.augment.random_ints import random_ints
from trainer.process.tf_import import tf

_ALPHA = 0.2  # as in the paper, on ImageNet
_QUANTILES = 1024


def mix(images: tf.Tensor, partners: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Averages each image with its partner; the larger weight is the image's.

    Args:
        images, partners: float32 [n, height, width, channels].
        seeds: uint32 [n].

    Returns:
        (images, lam: the weights of `images`), float32 as the images, and float32 [n].
    """
    lam = tf.gather(tf.constant(beta_quantiles(_ALPHA, _QUANTILES)), random_ints(seeds, 6, _QUANTILES))
    lam = tf.maximum(lam, 1 - lam)
    weights = lam[:, None, None, None]
    return weights * images + (1 - weights) * partners, lam


def beta_quantiles(alpha: float, count: int) -> np.ndarray:
    """The middle quantiles of Beta(alpha, alpha) in `count` equal parts: float32 [count], rising; `count` is even.

    With x = u ** (1 / alpha) the density's pole at 0 goes away, and u from 0 to 0.5 ** alpha is half of all.
    """
    u = np.linspace(0, 0.5**alpha, 20_001)
    density = (1 - u ** (1 / alpha)) ** (alpha - 1)
    rising = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    wanted = (np.arange(count // 2) + 0.5) / count
    low = np.interp(wanted, rising / (2 * rising[-1]), u) ** (1 / alpha)
    return np.concatenate([low, 1 - low[::-1]]).astype(np.float32)
