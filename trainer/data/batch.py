"""What flows through a pipeline."""

from typing import NamedTuple

import tensorflow as tf


class Batch(NamedTuple):
    """A replica's rows of a training step.

    ids int64 [n], seeds uint32 [n], images uint8 [n, height, width, channels], labels int32 [n]; sound
    float32 [n], 0 for pictures that can't be read, or None where all can. Where the pictures are on the device
    already, images and labels are None.
    """

    ids: tf.Tensor
    seeds: tf.Tensor
    images: tf.Tensor | None
    labels: tf.Tensor | None
    sound: tf.Tensor | None = None


class WeighedBatch(NamedTuple):
    """A replica's rows of an evaluation step: as in `Batch`.

    weights float32 [n], 0 for padding and for pictures that can't be read; missing float32 [n], 1 for the latter.
    """

    images: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    missing: tf.Tensor
