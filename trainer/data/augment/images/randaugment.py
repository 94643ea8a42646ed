"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719): two random changes of an image, at magnitude 9 of 30.

The changes and their ranges are those of the paper's table, each with a random sign where it has one. Uses random
numbers 16 to 19.
"""

from __future__ import annotations

import numpy as np

from trainer.data.augment.image_size import image_size
from trainer.data.augment.operations import OPERATIONS, Strengths, change, in_colour
from trainer.data.augment.random_ints import random_ints
from trainer.process.tf_import import tf

LAYERS, MAGNITUDE = 2, 9 / 30
_FIRST_INDEX = 16  # of the random numbers


def augment(images: tf.Tensor, seeds: tf.Tensor, by_comparison: bool = False) -> tf.Tensor:
    """Applies two random changes to each image.

    Args:
        images: uint8 [n, height, width, 3], or with one channel, which is changed as three equal ones are.
        seeds: uint32 [n].
        by_comparison: As in `operations.histograms`.

    Returns:
        uint8 of the same shape.

    Raises:
        UsageError: if the images have another number of channels.
    """
    def change_colours(images: tf.Tensor) -> tf.Tensor:
        for layer in range(LAYERS):
            index = _FIRST_INDEX + 2 * layer
            images = apply(images, random_ints(seeds, index, len(OPERATIONS)), random_ints(seeds, index + 1, 2),
                           by_comparison)
        return images

    return in_colour("randaugment", images, change_colours)


def apply(images: tf.Tensor, operations: tf.Tensor, signs: tf.Tensor, by_comparison: bool = False) -> tf.Tensor:
    """Applies one change to each image.

    Args:
        images: uint8 [n, height, width, 3].
        operations: int32 [n], indices into `OPERATIONS`.
        signs: int32 [n], 1 for the other direction.
        by_comparison: As in `operations.histograms`.

    Returns:
        uint8 of the same shape.
    """
    height, width = image_size(images)
    strength = tf.where(tf.equal(signs, 1), -MAGNITUDE, MAGNITUDE)
    angle = strength * (np.pi / 6)
    strengths = Strengths(
        shear=0.3 * strength, across=tf.round(150 / 331 * width * strength),
        down=tf.round(150 / 331 * height * strength), cosine=tf.cos(angle), sine=tf.sin(angle),
        factor=1 + 0.9 * strength, step=tf.fill(tf.shape(signs), 2.0 ** round(4 * MAGNITUDE)),
        threshold=tf.fill(tf.shape(signs), 256 * (1 - MAGNITUDE)))
    return change(images, operations, strengths, by_comparison)
