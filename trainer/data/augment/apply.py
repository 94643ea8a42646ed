"""What training does to a batch on the device: every augmentation that reading hasn't done already.

An example looks the same whichever replica sees it and after any resume: all follows from the image and a 32-bit seed,
which follows from (run seed, epoch, example id).

The partner of a row, for augmentations that join pairs, is its neighbour in the global batch: row 2i of row 2i + 1 and
the other way round. A replica has an even number of consecutive rows, so partners are never on different replicas, and
the number of replicas doesn't change which rows are partners.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from trainer.config import AUGMENTATIONS, PAIR_AUGMENTATIONS
from trainer.data.augment.random_ints import random_ints
from trainer.process.tf_import import tf
from trainer.process.user_code import call_for_tensor, function_of

if TYPE_CHECKING:
    from trainer.data.split import Split

_CHOICE = 5  # index of the random number that chooses among the augmentations that join pairs
_IMAGES = {name: importlib.import_module(f"trainer.data.augment.images.{name}").augment
           for name in AUGMENTATIONS if name not in PAIR_AUGMENTATIONS}
_PAIRS = {name: importlib.import_module(f"trainer.data.augment.pairs.{name}").mix for name in PAIR_AUGMENTATIONS}


class Target(NamedTuple):
    """What a model should answer.

    Args:
        labels: int32 [n], the labels of the examples.
        labels_b: int32 [n], the labels of their partners; the same object as `labels` where no pairs are joined.
        lam: float32 [n] from 0 to 1, the weight of `labels`; that of `labels_b` is 1 - lam.
    """

    labels: tf.Tensor
    labels_b: tf.Tensor
    lam: tf.Tensor

    def dominant(self) -> tf.Tensor:
        """The label with the larger weight: int32 [n]."""
        return tf.where(self.lam >= 0.5, self.labels, self.labels_b)


def left_for_device(augmentations: Sequence[str], split: Split) -> tuple[str, ...]:
    """The members of `--augment` that are left once a split's images have been read."""
    return tuple(name for name in augmentations if name not in split.done)


def augment_batch(images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor, names: Sequence[str],
                  by_comparison: bool = False) -> tuple[tf.Tensor, Target]:
    """Augments a batch.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].
        seeds: uint32 [n], one per example.
        names: Members of `--augment`.
        by_comparison: Whether to avoid scatters, as `operations.histograms` explains.

    Returns:
        (float32 images of the same shape, `Target`).
    """
    images = tf.cast(augment_images(images, seeds, names, by_comparison), tf.float32)
    pairs = [name for name in PAIR_AUGMENTATIONS if name in names]
    if pairs:
        return mix(images, labels, seeds, pairs)
    return images, Target(labels, labels, tf.ones_like(labels, tf.float32))


def augment_images(images: tf.Tensor, seeds: tf.Tensor, names: Sequence[str], by_comparison: bool = False) -> tf.Tensor:
    """Applies the members of `--augment` that change an image by itself, in their order.

    Args:
        images: uint8 [n, height, width, channels].
        seeds: uint32 [n].
        names: Members of `--augment`.
        by_comparison: As in `augment_batch`.

    Returns:
        uint8 of the same shape.
    """
    for name in names:
        if ":" in name:
            images = _own(name, images, seeds)
        elif name in _IMAGES:
            parameters = inspect.signature(_IMAGES[name]).parameters
            more = {"by_comparison": by_comparison} if "by_comparison" in parameters else {}
            images = _IMAGES[name](images, seeds, **more)
    return images


def _own(name: str, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """What a function of the user's makes of images; it must leave their shape and type."""
    function = function_of("augment", name, ("images", "seeds"))
    return call_for_tensor("augment", name, function, (images, seeds), images,
                           "images of the same type and shape are needed")


def mix(images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor, names: Collection[str]) -> tuple[tf.Tensor, Target]:
    """Joins each example with its partner; of several augmentations that do so, each example draws one.

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
    mixes = [_PAIRS[name](images, partners, seeds) for name in names]
    images, lam = mixes[0]
    if len(mixes) > 1:
        choice = random_ints(seeds, _CHOICE, len(mixes))
        for index, (mixed, mixed_lam) in enumerate(mixes[1:], 1):
            chosen = tf.equal(choice, index)
            images = tf.where(chosen[:, None, None, None], mixed, images)
            lam = tf.where(chosen, mixed_lam, lam)
    return images, Target(labels, labels_b, lam)
