"""The first examples of a run, as they are and as training sees them."""

from typing import NamedTuple

import numpy as np

from trainer.data.augment.apply import augment_batch, left_for_device
from trainer.process.tf_import import tf

COUNT = 8


class Samples(NamedTuple):
    """Images side by side: before and after uint8 [n, height, width, channels], and what each is called."""

    before: np.ndarray
    after: np.ndarray
    names: list[str]
    names_after: list[str]


def take_samples(job):
    """Takes the first examples of the first epoch.

    Args:
        job: The `Job`.

    Returns:
        The `Samples`.
    """
    data, batch_size = job.data, job.plan.batch_size
    ids, seeds = data.train.order(job.config.seed, batch_size).stream(0, min(COUNT, batch_size) // 2 * 2 or 1)
    places = tf.data.Dataset.from_tensors((ids, seeds))
    before, after = (next(iter(data.train.read(places, 1, training))) for training in (False, True))
    with tf.device("CPU:0"):
        images, target = augment_batch(after.images, after.labels, tf.constant(seeds),
                                       left_for_device(job.config.augment, data.train))
    names = [data.classes[label] for label in before.labels.numpy()]
    return Samples(before.images.numpy(), tf.saturate_cast(tf.round(images), tf.uint8).numpy(), names,
                   [_called(data.classes, *parts) for parts in zip(*(part.numpy() for part in target), strict=True)])


def _called(classes, label, other, share):
    return classes[label] if share > 0.995 else f"{share:.0%} {classes[label]}, {1 - share:.0%} {classes[other]}"
