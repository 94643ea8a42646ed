"""One encoded image to the model's size, inside a tf.data pipeline or a served model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from trainer.data.images import pillow_reader
from trainer.data.images.crops import View
from trainer.process.tf_import import reason, tf

# How an element is decoded: a JPEG, halved 0 to 3 times while decoding; a PNG, that is partly transparent or not; or by
# Pillow.
PNG, TRANSPARENT_PNG, OTHER = 4, 5, 6


class Decoder:
    """Decodes the part of an image that is asked for and brings it to the model's size.

    Args:
        view: How the model sees images.
        ways: The values that `way` may have; None for all. A graph that chooses takes a quarter longer for small JPEGs
            than one that needn't.
        turned: Whether any orientation but 1 may come.
        grey: Whether all images are grey, so that one channel of them is all.
        fits: Whether boxes are resized to other sizes than the model's, which are padded then.
    """

    def __init__(self, view: View, ways: Collection[int] | None = None, *, turned: bool = True, grey: bool = False,
                 fits: bool | None = None) -> None:
        self._view, self._turned, self._grey = view, turned, grey and view.channels == 1
        self._fits = view.resize == "pad" if fits is None else fits
        self._ways = sorted(range(OTHER + 1) if ways is None else ways)

    def decode(self, data: tf.Tensor, way: tf.Tensor, box: tf.Tensor, orientation: tf.Tensor,
               target: tf.Tensor) -> tf.Tensor:
        """Decodes an image.

        Args:
            data: The file's content, a string.
            way: int32: 0 to 3, `PNG`, `TRANSPARENT_PNG` or `OTHER`.
            box: int32 [4]: top, left, height, width in the pixels that the decoder gives; of a JPEG as they are
                stored, of all others as they are displayed.
            orientation: int32, 1 to 8: how the pixels are to be turned.
            target: int32 [2]: the height and width that the box is resized to.

        Returns:
            uint8 [height, width, channels] of the view.
        """
        decoders: dict[int, Callable[[], tf.Tensor]] = {
            **{halvings: functools.partial(self._jpeg, data, box, orientation, target, halvings)
               for halvings in range(4)},
            PNG: lambda: self._crop(self._turn(tf.io.decode_png(data, self._channels), orientation), box, target),
            TRANSPARENT_PNG: lambda: self._crop(self._turn(over_white(tf.io.decode_png(data, 4)), orientation), box,
                                                target),
            OTHER: lambda: self._crop(_by_pillow(data), box, target)}
        if len(self._ways) == 1:
            return self._finish(self._pad(decoders[self._ways[0]]()))
        branch = tf.gather([self._ways.index(each) if each in self._ways else 0 for each in decoders], way)
        return self._finish(tf.switch_case(branch, [lambda each=each: self._pad(decoders[each]())
                                                    for each in self._ways]))

    def fit(self, image: tf.Tensor, box: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Brings a part of a decoded image, uint8 [h, w, 3], to the model's size: arguments and result as `decode`."""
        return self._finish(self._pad(self._crop(image, box, target)))

    @property
    def _channels(self) -> int:
        return 1 if self._grey else 3

    def _jpeg(self, data: tf.Tensor, box: tf.Tensor, orientation: tf.Tensor, target: tf.Tensor,
              halvings: int) -> tf.Tensor:
        stored = tf.io.decode_and_crop_jpeg(data, box, channels=self._channels, ratio=2**halvings)
        image = self._turn(stored, orientation)
        size = self._size(target)
        return _resize(image, size) if self._view.crops else _resize_smoothly(image, size)  # less than twice the size

    def _turn(self, image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
        return upright(image, orientation) if self._turned else image

    def _crop(self, image: tf.Tensor, box: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        return _resize_smoothly(tf.slice(image, [box[0], box[1], 0], [box[2], box[3], -1]), self._size(target))

    def _size(self, target: tf.Tensor) -> tf.Tensor | list[int]:
        """What a box is resized to: a constant where it can be."""
        return target if self._fits else [self._view.height, self._view.width]

    def _pad(self, image: tf.Tensor) -> tf.Tensor:
        """The image in the middle of a black one, of the model's size."""
        height, width = self._view.height, self._view.width
        if not self._fits:
            return tf.ensure_shape(image, [height, width, None])
        shape = tf.shape(image)
        return tf.ensure_shape(tf.image.pad_to_bounding_box(
            image, (height - shape[0]) // 2, (width - shape[1]) // 2, height, width), [height, width, None])

    def _finish(self, image: tf.Tensor) -> tf.Tensor:
        if self._view.channels == 1:
            image = tf.slice(image, [0, 0, 0], [-1, -1, 1]) if self._grey else grey(image)
        return tf.ensure_shape(image, [self._view.height, self._view.width, self._view.channels])


def _by_pillow(data: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(pillow_reader.decode, [data], tf.uint8), [None, None, 3])


def over_white(image: tf.Tensor) -> tf.Tensor:
    """An image as it looks on white paper: uint8 [h, w, 3] of [h, w, 4] with opacities from 0 to 255."""
    wide: Any = tf.cast(image, tf.int32)
    colours, alpha = wide[..., :3], wide[..., 3:]
    return tf.cast((colours * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def grey(image: tf.Tensor) -> tf.Tensor:
    """How bright an image is (ITU-R BT.601): uint8 [h, w, 1] of [h, w, 3]; what is grey keeps its value."""
    wide: Any = tf.cast(image, tf.int32)
    luma = wide[..., 0] * 19595 + wide[..., 1] * 38470 + wide[..., 2] * 7471 + 32768
    return tf.expand_dims(tf.cast(luma // 65536, tf.uint8), -1)


def whole(data: bytes, header: pillow_reader.ImageHeader) -> np.ndarray:
    """All of an image, as the model would see it if it were large enough: uint8 [height, width, 3], upright.

    Args:
        data: The file's bytes.
        header: What `read_header` says of them; nothing may be wrong.

    Raises:
        ValueError: if the image can't be decoded.
    """
    if header.kind == pillow_reader.OTHER:
        return pillow_reader.decode(data)
    try:
        with tf.device("CPU:0"):
            if header.kind == pillow_reader.JPEG:
                image = tf.io.decode_jpeg(data, 3)
            elif header.kind == pillow_reader.PNG:
                image = tf.io.decode_png(data, 3)
            else:
                image = over_white(tf.io.decode_png(data, 4))
            return upright(image, tf.constant(header.orientation)).numpy()
    except tf.errors.OpError as error:
        raise ValueError(f"it can't be decoded: {reason(error)}") from None


def problem_of(data: bytes, header: pillow_reader.ImageHeader) -> str | None:
    """What is wrong with an image, in a few words, or None: decodes all of it, as training does.

    Args:
        data: The file's bytes.
        header: What `read_header` says of them.
    """
    if header.problem:
        return header.problem
    if header.kind == pillow_reader.OTHER:
        return pillow_reader.decoding_problem(data)
    try:
        whole(data, header)
    except ValueError as error:
        return pillow_reader.decoding_problem(data) or str(error)
    return None


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


def _resize(image: tf.Tensor, size: tf.Tensor | list[int]) -> tf.Tensor:
    """Bilinear, for images of less than twice the size."""
    resized = tf.raw_ops.ResizeBilinear(images=image[None], size=size, half_pixel_centers=True)[0]
    return tf.cast(tf.round(resized), tf.uint8)


def _resize_smoothly(image: tf.Tensor, size: tf.Tensor | list[int]) -> tf.Tensor:
    """Bilinear over all pixels that a new one covers, for images of any size."""
    return tf.cast(tf.round(tf.clip_by_value(tf.image.resize(image, size, antialias=True), 0, 255)), tf.uint8)


def ways_of(kinds: np.ndarray, halvings: np.ndarray) -> np.ndarray:
    """The value of `Decoder.decode`'s `way` for images: int32 [n], of their kinds and how often a JPEG is halved."""
    return np.select([kinds == pillow_reader.JPEG, kinds == pillow_reader.PNG, kinds == pillow_reader.TRANSPARENT_PNG],
                     [halvings, PNG, TRANSPARENT_PNG], OTHER).astype(np.int32)
