"""The first examples of a run, as they are and as training sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainer.data.augment.apply import augment_batch, left_for_device
from trainer.data.augment.shrink import shrink
from trainer.data.order import order_of
from trainer.data.pipeline import with_threads
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.data.split import Split
    from trainer.plan import Job

COUNT = 8


class Samples(NamedTuple):
    """Images before and after augmentation, side by side.

    Args:
        before: uint8 [n, height, width, channels].
        after: uint8 [n, height, width, channels]; smaller with `--train_sizes`.
        names: The class of each image before.
        names_after: The class of each image after, or both classes with their weights.
    """

    before: np.ndarray
    after: np.ndarray
    names: list[str]
    names_after: list[str]


def take_samples(job: Job) -> Samples:
    """Takes the first examples of the first epoch, at most eight."""
    data, batch_size = job.data, job.plan.batch_size
    ids, seeds = order_of(job).stream(0, min(COUNT, batch_size) // 2 * 2 or 1)
    positions = tf.data.Dataset.from_tensors((ids, seeds))
    before, after = (next(iter(with_threads(data.train.read(positions, 1, training), 1))) for training in (False, True))
    with tf.device("CPU:0"):
        images, target = augment_batch(after.images, after.labels, tf.constant(seeds),
                                       left_for_device(job.config.augment, data.train))
        side = job.plan.train_size(0)
        images = shrink(images, side) if side else images
    names = [data.classes[label] for label in before.labels.numpy()]
    names_after = [_name_of(data.classes, *row) for row in zip(*(part.numpy() for part in target), strict=True)]
    return Samples(before.images.numpy(), tf.saturate_cast(tf.round(images), tf.uint8).numpy(), names, names_after)


def take_images(split: Split, examples: np.ndarray) -> np.ndarray:
    """Some images of a split, as evaluation sees them.

    Args:
        split: The split.
        examples: int64 [n], their ids; at least one.

    Returns:
        uint8 [n, height, width, channels].
    """
    positions = tf.data.Dataset.from_tensors((examples, np.zeros(len(examples), np.uint32)))
    return next(iter(with_threads(split.read(positions, 1, training=False), 1))).images.numpy()


def _name_of(classes: Sequence[str], label: int, label_b: int, lam: float) -> str:
    return classes[label] if lam > 0.995 else f"{lam:.0%} {classes[label]}, {1 - lam:.0%} {classes[label_b]}"
