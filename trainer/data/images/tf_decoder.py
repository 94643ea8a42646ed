"""One encoded image to the model's size, inside a tf.data pipeline or a served model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trainer.data.images import pillow_reader
from trainer.data.images.crops import View
from trainer.process.tf_import import reason, tf

# How an image is decoded, its way: a JPEG, halved 0 to 3 times while decoding; a PNG, that is partly transparent or
# not; or by Pillow. To that of a JPEG or PNG is added 8 times its orientation less 1 (0 to 7), or TURNED where the
# orientation is known only when the graph runs.
PNG, TRANSPARENT_PNG, OTHER, TURNED = 4, 5, 6, 64
_REVERSING = ([3, 4, 7, 8], [2, 3, 6, 7])  # the orientations whose rows, whose columns are displayed in reverse


class Decoder:
    """Decodes the part of an image that is asked for and brings it to the model's size.

    Args:
        view: How the model sees images.
        grey: Whether all images are grey, so that one channel of them is all.
        fits: Whether boxes are resized to other sizes than the model's, and padded then; None for what `view` says.
    """

    def __init__(self, view: View, *, grey: bool = False, fits: bool | None = None) -> None:
        self._view, self._grey = view, grey and view.channels == 1
        self._fits = view.resize == "pad" if fits is None else fits

    def decode(self, data: tf.Tensor, way: int, box: tf.Tensor, orientation: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Decodes an image.

        Args:
            data: The file's content, a string.
            way: 0 to 3, `PNG`, `TRANSPARENT_PNG` or `OTHER`, with what is added to it for the orientation.
            box: int32 [4]: top, left, height, width in the pixels that the decoder gives; of a JPEG as they are
                stored, of all others as they are displayed.
            orientation: int32, 1 to 8: how the pixels are to be turned, where the way doesn't say it.
            target: int32 [2]: the height and width that the box is resized to.

        Returns:
            uint8 [height, width, channels] of the view.
        """
        channels, kind = 1 if self._grey else 3, way % 8
        if kind < PNG:
            image = tf.io.decode_and_crop_jpeg(data, box, channels=channels, ratio=2**kind)
        elif kind == PNG:
            image = tf.io.decode_png(data, channels)
        elif kind == TRANSPARENT_PNG:
            image = over_white(tf.io.decode_png(data, 4))
        else:
            image = tf.ensure_shape(tf.numpy_function(pillow_reader.decode, [data], tf.uint8), [None, None, 3])
        image = upright(image, orientation) if way >= TURNED else _turned(image, way // 8 + 1)
        if kind >= PNG:
            return self.fit(image, box, target)
        # A JPEG has less than twice the size by now, where all of its box is seen in its shape.
        resize = _resize if self._view.crops else _resize_smoothly
        return self._finish(resize(image, self._size(target)))

    def decode_one_of(self, ways: Sequence[int], data: tf.Tensor, index: tf.Tensor, box: tf.Tensor,
                      orientation: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Decodes an image in one of several ways, which is known only when the graph runs.

        Args:
            ways: The ways; where there is one, nothing is left to choose.
            data, box, orientation, target: As in `decode`.
            index: int32, of the image's way.
        """
        if len(ways) == 1:
            return self.decode(data, ways[0], box, orientation, target)

        def branch(static_way: int) -> Callable[[], tf.Tensor]:
            return lambda: self.decode(data, static_way, box, orientation, target)

        return tf.ensure_shape(tf.switch_case(index, [branch(each) for each in ways]), self._view[:3])

    def fit(self, image: tf.Tensor, box: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Brings a part of a decoded image, uint8 [h, w, c], to the model's size: arguments and result as `decode`."""
        part = tf.slice(image, [box[0], box[1], 0], [box[2], box[3], -1])
        return self._finish(_resize_smoothly(part, self._size(target)))

    def _size(self, target: tf.Tensor) -> tf.Tensor | list[int]:
        """What a box is resized to: a constant where it can be."""
        return target if self._fits else [self._view.height, self._view.width]

    def _finish(self, image: tf.Tensor) -> tf.Tensor:
        """The resized image in the middle of a black one, if it doesn't fill that, in the model's channels."""
        height, width, channels, _ = self._view
        if self._fits:
            shape = tf.shape(image)
            top, left = (height - shape[0]) // 2, (width - shape[1]) // 2
            image = tf.image.pad_to_bounding_box(image, top, left, height, width)
        if channels == 1:
            image = tf.slice(image, [0, 0, 0], [-1, -1, 1]) if self._grey else grey(image)
        return tf.ensure_shape(image, [height, width, channels])


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
    if header.kind == pillow_reader.OTHER and not header.problem:
        return pillow_reader.decoding_problem(data)
    return inspect(data, header)[0]


def inspect(data: bytes, header: pillow_reader.ImageHeader) -> tuple[str | None, np.ndarray | None]:
    """Decodes all of an image.

    Args:
        data: The file's bytes.
        header: What `read_header` says of them.

    Returns:
        (what is wrong with it, in a few words, or None; its pixels as `whole` returns them, or None).
    """
    problem = header.problem or (pillow_reader.decoding_problem(data) if header.kind == pillow_reader.OTHER else None)
    if problem:
        return problem, None
    try:
        return None, whole(data, header)
    except ValueError as error:
        return pillow_reader.decoding_problem(data) or str(error), None


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
        axes = [tf.reduce_any(tf.equal(orientation, reversing)) for reversing in (*_REVERSING, [])]
        return tf.reverse(stored, tf.where(tf.stack(axes))[:, 0])

    return tf.cond(tf.equal(orientation, 1), unchanged, turned)


def _turned(image: tf.Tensor, orientation: int) -> tf.Tensor:
    """As `upright`, for an orientation that is known beforehand: without a branch, which costs more than turning."""
    image = tf.transpose(image, [1, 0, 2]) if orientation >= 5 else image
    axes = [axis for axis, reversing in enumerate(_REVERSING) if orientation in reversing]
    return tf.reverse(image, axes) if axes else image


def _resize(image: tf.Tensor, size: tf.Tensor | list[int]) -> tf.Tensor:
    """Bilinear, for images of less than twice the size."""
    resized = tf.raw_ops.ResizeBilinear(images=image[None], size=size, half_pixel_centers=True)[0]
    return tf.cast(tf.round(resized), tf.uint8)


def _resize_smoothly(image: tf.Tensor, size: tf.Tensor | list[int]) -> tf.Tensor:
    """Bilinear over all pixels that a new one covers, for images of any size."""
    return tf.cast(tf.round(tf.clip_by_value(tf.image.resize(image, size, antialias=True), 0, 255)), tf.uint8)


def ways_of(kinds: np.ndarray, halvings: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """The ways of images: int32 [n], of their kinds, how often a JPEG is halved, and how they are turned."""
    ways = np.select([kinds == pillow_reader.JPEG, kinds == pillow_reader.PNG, kinds == pillow_reader.TRANSPARENT_PNG],
                     [halvings, PNG, TRANSPARENT_PNG], OTHER)
    return (ways + 8 * np.where(ways == OTHER, 0, orientations - 1)).astype(np.int32)
