"""TrivialAugment (Müller & Hutter 2021, arXiv:2103.10158): one random change, of a strength drawn from 31.

The changes and their ranges are those of its wide space (the paper's table of spaces, and torchvision's
TrivialAugmentWide); pixels from outside an image are grey, and shears are around its middle, as in operations.py. Uses
random numbers 24 to 26.
"""

from __future__ import annotations

import numpy as np

from trainer.data.augment.operations import OPERATIONS, Strengths, change, in_colour
from trainer.data.augment.random_ints import random_ints
from trainer.process.tf_import import tf

LEVELS = 31
_ANGLES = np.radians(np.linspace(0, 135, LEVELS))


def augment(images: tf.Tensor, seeds: tf.Tensor, by_comparison: bool = False) -> tf.Tensor:
    """Applies a random change to each image; arguments, result and errors as of randaugment's."""
    drawn, levels, signs = (random_ints(seeds, 24 + part, below)
                            for part, below in enumerate((len(OPERATIONS), LEVELS, 2)))
    return in_colour("trivial", images, lambda images: apply(images, drawn, levels, signs, by_comparison))


def apply(images: tf.Tensor, operations: tf.Tensor, levels: tf.Tensor, signs: tf.Tensor,
          by_comparison: bool = False) -> tf.Tensor:
    """Applies one change to each image.

    Args:
        images: uint8 [n, height, width, 3].
        operations: int32 [n], indices into `OPERATIONS`.
        levels: int32 [n], from 0 to LEVELS - 1.
        signs: int32 [n], 1 for the other direction.
        by_comparison: As in `operations.histograms`.

    Returns:
        uint8 of the same shape.
    """
    size, is_negative = tf.cast(levels, tf.float32) / (LEVELS - 1), tf.equal(signs, 1)
    strength = tf.where(is_negative, -size, size)
    pixels = tf.cast(tf.cast(32 * strength, tf.int32), tf.float32)  # rounded towards 0
    lost = (levels * 6 + (LEVELS - 1) // 2) // (LEVELS - 1)  # bits, rounded: of the eight, at least two are left
    step = tf.cast(tf.bitwise.left_shift(tf.ones_like(levels), lost), tf.float32)
    # Of a table: computed by TensorFlow, the last bit depends on an example's place in the batch.
    cosine, sine = (tf.gather(tf.constant(table(_ANGLES), tf.float32), levels) for table in (np.cos, np.sin))
    return change(images, operations, Strengths(
        shear=0.99 * strength, across=pixels, down=pixels, cosine=cosine, sine=tf.where(is_negative, -sine, sine),
        factor=1 + 0.99 * strength, step=step, threshold=256 * (1 - size)), by_comparison)
