"""What training does to a batch on the device: every augmentation that reading hasn't done already.

An example looks the same whichever replica sees it and after any resume: all follows from the image and a 32-bit seed,
which follows from (run seed, epoch, example id).

The partner of a row, for what joins pairs, is its neighbour in the global batch: row 2i of row 2i + 1 and the other way
round. A replica has an even number of consecutive rows, so partners are never on different replicas, and who they are
doesn't depend on how many replicas there are.
"""

import importlib
import inspect
from typing import NamedTuple

from trainer.config import AUGMENTATIONS, PAIR_AUGMENTATIONS
from trainer.data.augment.random_ints import draw
from trainer.process.tf_import import tf

_CHOICE = 5  # the random number that chooses among those that join pairs
_IMAGES = {name: importlib.import_module(f"trainer.data.augment.images.{name}").augment
           for name in AUGMENTATIONS if name not in PAIR_AUGMENTATIONS}
_PAIRS = {name: importlib.import_module(f"trainer.data.augment.pairs.{name}").mix for name in PAIR_AUGMENTATIONS}


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


def left_for_device(augmentations, split):
    """The members of `--augment` that are left once a split's images have been read: a tuple of names."""
    return tuple(name for name in augmentations if name not in split.done)


def augment_batch(images, labels, seeds, names, by_comparison=False):
    """Augments a batch.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].
        seeds: uint32 [n], one per example.
        names: Members of `--augment`.
        by_comparison: Whether scatters are to be avoided; see `images/randaugment.histograms`.

    Returns:
        (float32 images of the same shape, `Target`).
    """
    images = tf.cast(augment_images(images, seeds, names, by_comparison), tf.float32)
    pairs = [name for name in PAIR_AUGMENTATIONS if name in names]
    if pairs:
        return mix(images, labels, seeds, pairs)
    return images, Target(labels, labels, tf.ones_like(labels, tf.float32))


def augment_images(images, seeds, names, by_comparison=False):
    """Applies the members of `--augment` that change an image by itself, in their order.

    Args:
        images: uint8 [n, height, width, channels].
        seeds: uint32 [n].
        names: Members of `--augment`.
        by_comparison: As of `augment_batch`.

    Returns:
        uint8 of the same shape.
    """
    for name in names:
        if name in _IMAGES:
            takes = inspect.signature(_IMAGES[name]).parameters
            more = {"by_comparison": by_comparison} if "by_comparison" in takes else {}
            images = _IMAGES[name](images, seeds, **more)
    return images


def mix(images, labels, seeds, names):
    """Joins each example with its partner; of several ways, each example draws one.

    Args:
        images: float32 [n, height, width, channels]; n is even.
        labels: int32 [n].
        seeds: uint32 [n].
        names: Those of `--augment` that join pairs, at least one.

    Returns:
        (images, `Target`).
    """
    pairs = tf.reshape(tf.range(images.shape[0]), [-1, 2])[:, ::-1]
    partner_rows = tf.reshape(pairs, [-1])
    labels_b, partners = tf.gather(labels, partner_rows), tf.gather(images, partner_rows)
    ways = [_PAIRS[name](images, partners, seeds) for name in names]
    images, lam = ways[0]
    choice = draw(seeds, _CHOICE, len(ways)) if len(ways) > 1 else None
    for index, (mixed, its_lam) in enumerate(ways[1:], 1):
        chosen = tf.equal(choice, index)
        images = tf.where(chosen[:, None, None, None], mixed, images)
        lam = tf.where(chosen, its_lam, lam)
    return images, Target(labels, labels_b, lam)
