"""One encoded image to the model's size, inside a tf.data pipeline."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection

import numpy as np

from trainer.data.images import pillow_reader
from trainer.process.tf_import import tf

# How an element is decoded: a JPEG, halved 0 to 3 times while decoding, a PNG, or anything else.
PNG, OTHER = 4, 5


def decode(data: tf.Tensor, way: tf.Tensor, box: tf.Tensor, orientation: tf.Tensor, size: int,
           ways: Collection[int] | None = None, turned: bool = True) -> tf.Tensor:
    """Decodes the part of an image that is asked for and brings it to the model's size.

    Args:
        data: The file's content, a string.
        way: int32: 0 to 3, `PNG` or `OTHER`.
        box: int32 [4]: top, left, height, width in the pixels that the decoder gives.
        orientation: int32, EXIF's: how the pixels are to be turned.
        size: Side of the model's images in pixels.
        ways: The values that `way` may have; None for all. A graph that chooses takes a quarter longer for small JPEGs
            than one that needn't.
        turned: Whether any orientation but 1 may come.

    Returns:
        uint8 [size, size, 3].
    """
    def turn(image: tf.Tensor) -> tf.Tensor:
        return upright(image, orientation) if turned else image

    def crop(image: tf.Tensor) -> tf.Tensor:
        return _resize_smoothly(tf.slice(image, [box[0], box[1], 0], [box[2], box[3], 3]), size)

    def jpeg(halvings: int) -> tf.Tensor:
        return _resize(turn(tf.io.decode_and_crop_jpeg(data, box, channels=3, ratio=2**halvings)), size)

    def png() -> tf.Tensor:
        return crop(turn(tf.io.decode_png(data, 3)))

    def other() -> tf.Tensor:
        return crop(tf.ensure_shape(tf.numpy_function(pillow_reader.decode, [data], tf.uint8), [None, None, 3]))

    decoders: dict[int, Callable[[], tf.Tensor]] = {
        **{halvings: functools.partial(jpeg, halvings) for halvings in range(4)}, PNG: png, OTHER: other}
    chosen = sorted(decoders if ways is None else ways)
    if len(chosen) == 1:
        return tf.ensure_shape(decoders[chosen[0]](), [size, size, 3])
    branch = tf.gather([chosen.index(each) if each in chosen else 0 for each in decoders], way)
    return tf.ensure_shape(tf.switch_case(branch, [decoders[each] for each in chosen]), [size, size, 3])


def is_decodable(data: bytes) -> bool:
    """Whether TensorFlow decodes all of a JPEG or PNG."""
    with tf.device("CPU:0"), contextlib.suppress(tf.errors.OpError):
        tf.io.decode_image(tf.constant(data), channels=3, expand_animations=False)
        return True
    return False


def mirror(image: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Mirrors an image left to right if `mirrored`, an int32, is 1; leaves it as it is if that is 0."""
    return tf.reverse(image, tf.range(1, 1 + mirrored))  # no axis, or the second: no branch


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image as EXIF says (TIFF 6.0, tag 274).

    Args:
        image: [h, w, c].
        orientation: int32, 1 to 8.

    Returns:
        [h, w, c] or [w, h, c].
    """
    def unchanged() -> tf.Tensor:
        return image

    def transposed() -> tf.Tensor:
        return tf.transpose(image, [1, 0, 2])

    def turned() -> tf.Tensor:
        stored = tf.cond(orientation >= 5, transposed, unchanged)
        axes = [tf.reduce_any(tf.equal(orientation, reversing)) for reversing in ([3, 4, 7, 8], [2, 3, 6, 7], [])]
        return tf.reverse(stored, tf.where(tf.stack(axes))[:, 0])

    return tf.cond(tf.equal(orientation, 1), unchanged, turned)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Bilinear, for images of less than twice the size."""
    resized = tf.raw_ops.ResizeBilinear(images=image[None], size=[size, size], half_pixel_centers=True)[0]
    return tf.cast(tf.round(resized), tf.uint8)


def _resize_smoothly(image: tf.Tensor, size: int) -> tf.Tensor:
    """Bilinear over all pixels that a new one covers, for images of any size."""
    return tf.cast(tf.round(tf.clip_by_value(tf.image.resize(image, [size, size], antialias=True), 0, 255)), tf.uint8)


def ways_of(kinds: np.ndarray, halvings: np.ndarray) -> np.ndarray:
    """The value of `decode`'s `way` for images: int32 [n], of their kinds and how often a JPEG may be halved."""
    return np.select([kinds == pillow_reader.JPEG, kinds == pillow_reader.PNG], [halvings, PNG], OTHER).astype(np.int32)
