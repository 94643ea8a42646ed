"""The first examples of a run, as they are and as training sees them."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.config import mixes
from trainer.data.augment import mixup
from trainer.data.augment.basic import augment

COUNT = 8


class Samples(NamedTuple):
    """Pictures side by side: before and after uint8 [n, height, width, channels], and what each is called."""

    before: np.ndarray
    after: np.ndarray
    names: list[str]
    names_after: list[str]


def take_samples(data, config, batch_size, augmentations):
    """Takes the first examples of the first epoch.

    Args:
        data: The `Dataset`.
        config: The run's `Config`.
        batch_size: Rows of the global batch.
        augmentations: What is done on the device, as `pipeline.Feed` has it.

    Returns:
        The `Samples`.
    """
    ids, seeds = data.train.order(config.seed, batch_size).stream(0, min(COUNT, batch_size) // 2 * 2 or 1)
    places = tf.data.Dataset.from_tensors((ids, seeds))
    before, after = (next(iter(data.train.read(places, 1, training))) for training in (False, True))
    with tf.device("CPU:0"):
        images, target = augmented(after.images, after.labels, tf.constant(seeds), augmentations)
    names = [data.classes[label] for label in before.labels.numpy()]
    return Samples(before.images.numpy(), tf.saturate_cast(tf.round(images), tf.uint8).numpy(), names,
                   [_called(data.classes, *parts) for parts in zip(*(part.numpy() for part in target), strict=True)])


def augmented(images, labels, seeds, names, by_comparison=False):
    """What training does to a batch on the device.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].
        seeds: uint32 [n].
        names: Members of `--augment`.
        by_comparison: As in `augment.augment`.

    Returns:
        (float32 pictures of the same shape, `mixing.Target`).
    """
    images = tf.cast(augment(images, seeds, names, by_comparison), tf.float32)
    if mixes(names):
        return mixup.mix(images, labels, seeds, names)
    return images, mixup.Target(labels, labels, tf.ones_like(labels, tf.float32))


def _called(classes, label, other, share):
    return classes[label] if share > 0.995 else f"{share:.0%} {classes[label]}, {1 - share:.0%} {classes[other]}"
