"""mixup and cutmix: two examples in one image, and a target that says how much of each.

The partner of a row is its neighbour in the global batch, row 2i of row 2i + 1 and the other way round. A
replica has an even number of consecutive rows, so partners are never on different replicas, and who they are
doesn't depend on how many replicas there are.
"""

from typing import NamedTuple

import numpy as np

from trainer.data.augment.random_ints import draw, uniform
from trainer.process.tf_import import tf

NAMES = ("mixup", "cutmix")
_MIXUP_ALPHA = 0.2  # as Zhang et al. 2018 on ImageNet; cutmix's is 1, as Yun et al. 2019
_QUANTILES = 1024


class Target(NamedTuple):
    """What a model should answer: the label, another one, and the share of the first.

    labels int32 [n], others int32 [n], shares float32 [n] from 0 to 1.
    """

    labels: tf.Tensor
    labels_b: tf.Tensor
    lam: tf.Tensor

    def dominant(self):
        """The label of which there is more: int32 [n]."""
        return tf.where(self.lam >= 0.5, self.labels, self.labels_b)


def mix(images, labels, seeds, names):
    """Applies the mixing among the named augmentations; of both, each example draws one.

    Args:
        images: float32 [n, height, width, channels]; n is even.
        labels: int32 [n].
        seeds: uint32 [n].
        names: Members of `--augment`.

    Returns:
        (images, `Target`).
    """
    chosen = [name for name in NAMES if name in names]
    pairs = tf.reshape(tf.range(images.shape[0]), [-1, 2])[:, ::-1]
    partners = tf.reshape(pairs, [-1])
    labels_b, beside = tf.gather(labels, partners), tf.gather(images, partners)
    mixed = [_MIXERS[name](images, beside, seeds) for name in chosen]
    images, lam = mixed[0]
    if len(mixed) == 2:
        second = tf.equal(draw(seeds, 5, 2), 1)
        images = tf.where(second[:, None, None, None], mixed[1][0], images)
        lam = tf.where(second, mixed[1][1], lam)
    return images, Target(labels, labels_b, lam)


def _mixup(images, beside, seeds):
    """The mean of both, weighed by Beta(0.2, 0.2); the larger weight is the example's own."""
    lam = tf.gather(tf.constant(beta_quantiles(_MIXUP_ALPHA, _QUANTILES)), draw(seeds, 6, _QUANTILES))
    lam = tf.maximum(lam, 1 - lam)
    weights = lam[:, None, None, None]
    return weights * images + (1 - weights) * beside, lam


def _cutmix(images, beside, seeds):
    """A box of the other image, of a uniformly random share of the area, at a random place."""
    height, width = images.shape[1:3]
    side = tf.sqrt(uniform(seeds, 7))

    def inside(number, size):
        centre, half = tf.cast(draw(seeds, number, size), tf.float32) + 0.5, side * size / 2
        at = tf.range(size, dtype=tf.float32) + 0.5
        return tf.abs(at - centre[:, None]) < half[:, None]

    box = inside(8, height)[:, :, None] & inside(9, width)[:, None, :]
    lam = 1 - tf.reduce_mean(tf.cast(box, tf.float32), [1, 2])
    return tf.where(box[..., None], beside, images), lam


_MIXERS = {"mixup": _mixup, "cutmix": _cutmix}


def beta_quantiles(alpha, count):
    """The middle quantiles of Beta(alpha, alpha) in `count` equal parts: float32 [count], rising.

    With x = u ** (1 / alpha) the density's pole at 0 goes away, and u from 0 to 0.5 ** alpha is half of all.
    """
    u = np.linspace(0, 0.5**alpha, 20_001)
    density = (1 - u ** (1 / alpha)) ** (alpha - 1)
    rising = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    wanted = (np.arange(count // 2) + 0.5) / count
    low = np.interp(wanted, rising / (2 * rising[-1]), u) ** (1 / alpha)
    return np.concatenate([low, 1 - low[::-1]]).astype(np.float32)
