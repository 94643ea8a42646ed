"""The size of a batch's images, which is known before the graph that augments them is made."""

from trainer.process.tf_import import tf


def image_size(images: tf.Tensor) -> tuple[int, int]:
    """(height, width) in pixels of a batch [n, height, width, channels]."""
    height, width = images.shape[1:3]
    return height, width  # pyright: ignore[reportReturnType]  None only where a size is not known beforehand
