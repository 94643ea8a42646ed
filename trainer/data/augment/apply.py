"""What training does to a batch on the device: every augmentation that reading hasn't done already."""

from trainer.config import mixes
from trainer.data.augment import mixup
from trainer.data.augment.basic import augment
from trainer.process.tf_import import tf


def left_for_device(augmentations, split):
    """The members of `--augment` that are left once a split's images have been read: a tuple of names."""
    return tuple(name for name in augmentations if name not in split.done)


def augment_batch(images, labels, seeds, names, by_comparison=False):
    """Augments a batch.

    Args:
        images: uint8 [n, height, width, channels].
        labels: int32 [n].
        seeds: uint32 [n].
        names: Members of `--augment`.
        by_comparison: As in `augment.augment`.

    Returns:
        (float32 images of the same shape, `mixup.Target`).
    """
    images = tf.cast(augment(images, seeds, names, by_comparison), tf.float32)
    if mixes(names):
        return mixup.mix(images, labels, seeds, names)
    return images, mixup.Target(labels, labels, tf.ones_like(labels, tf.float32))
