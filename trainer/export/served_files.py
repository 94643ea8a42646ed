"""From an image file's bytes to the model's pixels, in graph operations alone: what a served model does with a file.

JPEG (RGB and grey), PNG, GIF and BMP become the very pixels that training, evaluation and `predict` see. All else is
refused, also what these four kinds hold in rare forms: JPEG in CMYK, GIF that moves or is transparent, BMP of other
than 24 and 32 bits. The rules are those of data/images/; a test holds one against the other, file by file.
"""

from __future__ import annotations

from typing import Any

from trainer.data.images import tf_decoder
from trainer.data.images.crops import View
from trainer.export.served_metadata import (
    is_plain_gif,
    jpeg_metadata,
    numbers_of,
    orientation_of,
    png_metadata,
    starts_with,
)
from trainer.process.tf_import import tf

_WHAT_IS_READ = "files that are read: JPEG in RGB or grey, PNG, BMP of 24 or 32 bits, GIF of one opaque image"


class FileDecoder:
    """Makes the model's image of an image file.

    Args:
        view: How the model sees images.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._decoder = tf_decoder.Decoder(view)

    def decode(self, data: tf.Tensor) -> tf.Tensor:
        """Decodes a file: uint8 [height, width, channels] of its bytes, a scalar string.

        Raises:
            tf.errors.InvalidArgumentError: when it runs, if the file isn't one that is read.
        """
        starts = [starts_with(data, mark) for mark in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")]
        known = tf.debugging.Assert(tf.reduce_any(starts), [_WHAT_IS_READ])
        with tf.control_dependencies([known] if known is not None else []):
            kind = tf.argmax(tf.cast(tf.stack(starts), tf.int32), output_type=tf.int32)
        image = tf.switch_case(kind, [lambda: self._jpeg(data), lambda: self._png(data), lambda: self._gif(data),
                                      lambda: self._bmp(data)])
        return tf.ensure_shape(image, self._view[:3])

    def _jpeg(self, data: tf.Tensor) -> tf.Tensor:
        shape: Any = tf.image.extract_jpeg_shape(data)
        with tf.control_dependencies([_require(shape[2] != 4)]):
            exif, xmp = jpeg_metadata(data)
            turn = orientation_of(exif, xmp)
        turned = turn >= 5
        height, width = tf.where(turned, shape[1], shape[0]), tf.where(turned, shape[0], shape[1])
        box, target = _box_and_target(height, width, self._view)
        room = tf.maximum(1, tf.reduce_min(box[2:] // target))
        halvings = tf.reduce_sum(tf.cast(room >= [2, 4, 8], tf.int32))
        stored = tf.maximum(tf.bitwise.right_shift(_stored(box, height, width, turn), halvings), [0, 0, 1, 1])
        ways = [way + tf_decoder.TURNED for way in range(4)]
        return self._decoder.decode_one_of(ways, data, halvings, stored, turn, target)

    def _png(self, data: tf.Tensor) -> tf.Tensor:
        exif, xmp, transparent = png_metadata(data)
        turn = orientation_of(exif, xmp)
        size = numbers_of(tf.strings.substr(data, 16, 8), big_endian=True, bytes_each=4)
        turned = turn >= 5
        height, width = tf.where(turned, size[0], size[1]), tf.where(turned, size[1], size[0])
        box, target = _box_and_target(height, width, self._view)
        ways = [way + tf_decoder.TURNED for way in (tf_decoder.PNG, tf_decoder.TRANSPARENT_PNG)]
        return self._decoder.decode_one_of(ways, data, tf.cast(transparent, tf.int32), box, turn, target)

    def _gif(self, data: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([_require(is_plain_gif(data))]):
            frames: Any = tf.io.decode_gif(data)
        with tf.control_dependencies([_require(tf.shape(frames)[0] == 1)]):
            return self._pixels(frames[0])

    def _bmp(self, data: tf.Tensor) -> tf.Tensor:
        header = tf.concat([numbers_of(tf.strings.substr(data, 14, 4), False, 4),
                            numbers_of(tf.strings.substr(data, 28, 2), False, 2),
                            numbers_of(tf.strings.substr(data, 30, 4), False, 4)], 0)
        plain = (header[0] >= 40) & ((header[1] == 24) | (header[1] == 32)) & (header[2] == 0)
        with tf.control_dependencies([_require(plain)]):
            pixels: Any = tf.io.decode_bmp(data)
        return self._pixels(pixels[:, :, :3])

    def _pixels(self, image: Any) -> tf.Tensor:
        """The model's image of a whole one, uint8 [h, w, 3]."""
        image = tf.ensure_shape(image, [None, None, 3])
        shape: Any = tf.shape(image)
        box, target = _box_and_target(shape[0], shape[1], self._view)
        return self._decoder.fit(image, box, target)


def _require(condition: Any) -> tf.Operation:
    operation = tf.debugging.Assert(condition, [_WHAT_IS_READ])
    return tf.no_op() if operation is None else operation  # eager: checked already


def _box_and_target(height: Any, width: Any, view: View) -> tuple[Any, Any]:
    """`crops.central_boxes` and `crops.targets` of one image."""
    if view.crops:
        shorter, size = tf.minimum(height, width), view.height
        side = shorter
        if view.is_large:
            part = tf.cast(tf.round(tf.cast(shorter, tf.float64) * 7 / 8), tf.int32)
            side = tf.where((height == size) & (width == size), shorter, tf.maximum(1, part))
        return tf.stack([(height - side) // 2, (width - side) // 2, side, side]), tf.constant([size, size])
    box, model = tf.stack([0, 0, height, width]), tf.constant([view.height, view.width])
    if view.resize != "pad":
        return box, model
    sides = tf.cast(box[2:], tf.float64)
    scale = tf.reduce_min(tf.cast(model, tf.float64) / sides)
    return box, tf.clip_by_value(tf.cast(tf.round(sides * scale), tf.int32), 1, model)


def _stored(box: Any, height: Any, width: Any, turn: Any) -> Any:
    """`crops.stored_boxes` of one image."""
    top, left, tall, wide = tf.unstack(box)
    bottom, right = height - top - tall, width - left - wide
    origins = [(top, left), (top, right), (bottom, right), (bottom, left),
               (left, top), (right, top), (right, bottom), (left, bottom)]
    origin = tf.gather(tf.stack([tf.stack(each) for each in origins]), turn - 1)
    return tf.concat([origin, tf.where(turn >= 5, tf.stack([wide, tall]), tf.stack([tall, wide]))], 0)
