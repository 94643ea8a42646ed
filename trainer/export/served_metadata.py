"""What image files say beside their pixels, read in graph operations: orientation, transparency, a GIF's frame.

The rules of orientation are those of data/images/orientation.py; which bytes they look at is what Pillow looks at.
"""

from __future__ import annotations

from typing import Any

from trainer.data.images import orientation as rules
from trainer.process.tf_import import tf

_MARKERS_WITHOUT_LENGTH = (*range(0xD0, 0xD8), 0x01, 0x00)
_START_OF_SCAN, _APP1 = 0xDA, 0xE1


def starts_with(data: tf.Tensor, mark: bytes) -> Any:
    """Whether a string begins with a mark: a scalar bool tensor."""
    return tf.strings.substr(data, 0, tf.minimum(len(mark), tf.strings.length(data))) == mark


def numbers_of(data: tf.Tensor, big_endian: Any, bytes_each: int) -> Any:
    """int32 [n]: the unsigned numbers that a string's bytes are; those over 2^31 - 1 come out negative."""
    octets = tf.reshape(tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32), [-1, bytes_each])
    octets = tf.cond(tf.constant(big_endian) if isinstance(big_endian, bool) else big_endian,
                     lambda: octets, lambda: tf.reverse(octets, [1]))
    return tf.reduce_sum(octets * [[256 ** place for place in range(bytes_each - 1, -1, -1)]], 1)


def piece(data: tf.Tensor, begin: Any, length: Any) -> tf.Tensor:
    """A stretch of a string, as far as the string goes; "" outside."""
    size = tf.strings.length(data)
    begin = tf.clip_by_value(begin, 0, size)
    return tf.strings.substr(data, begin, tf.clip_by_value(length, 0, size - begin))


def jpeg_metadata(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(EXIF of the first segment that holds some, XMP of the last) of a JPEG; "" for none."""
    def goes_on(place: Any, exif: Any, xmp: Any) -> Any:
        return place + 4 <= tf.strings.length(data)

    def segment(place: Any, exif: Any, xmp: Any) -> tuple[Any, Any, Any]:
        octets: Any = tf.cast(tf.io.decode_raw(tf.strings.substr(data, place, 4), tf.uint8), tf.int32)
        marker = octets[1]
        is_marker = octets[0] == 0xFF
        bare = tf.reduce_any(tf.equal(marker, _MARKERS_WITHOUT_LENGTH))
        length = octets[2] * 256 + octets[3]
        content = piece(data, place + 4, length - 2)
        is_app1 = is_marker & (marker == _APP1)
        exif = tf.where(is_app1 & starts_with(content, rules.EXIF_MARK) & (exif == ""), content, exif)
        xmp = tf.where(is_app1 & starts_with(content, rules.XMP_MARK), content, xmp)
        # Padding and what is no marker at all is passed over, as Pillow does it.
        step = tf.where(~is_marker | (marker == 0xFF), 1, tf.where(bare, 2, 2 + tf.maximum(2, length)))
        following = tf.where(is_marker & (marker == _START_OF_SCAN), tf.strings.length(data), place + step)
        return following, exif, xmp

    _, exif, xmp = tf.while_loop(goes_on, segment, (2, tf.constant(b""), tf.constant(b"")))
    return _without_mark(exif), xmp


def png_metadata(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Any]:
    """(EXIF, XMP, whether it is partly transparent) of a PNG, by what stands before its pixels; "" for none."""
    colour: Any = tf.cast(tf.io.decode_raw(piece(data, 25, 1), tf.uint8), tf.int32)

    def goes_on(place: Any, *_: Any) -> Any:
        return place + 12 <= tf.strings.length(data)

    def step(place: Any, exif: Any, xmp: Any, transparent: Any) -> tuple[Any, Any, Any, Any]:
        length = numbers_of(tf.strings.substr(data, place, 4), True, 4)[0]
        name = tf.strings.substr(data, place + 4, 4)
        content = piece(data, place + 8, length)
        exif = tf.where(name == b"eXIf", content, exif)
        xmp = tf.where((name == b"iTXt") & starts_with(content, rules.PNG_XMP_KEYWORD + b"\0"), content, xmp)
        ended = (name == b"IDAT") | (length < 0)
        return (tf.where(ended, tf.strings.length(data), place + 12 + length), exif, xmp,
                transparent | (name == b"tRNS"))

    start = (8, tf.constant(b""), tf.constant(b""), tf.reduce_any((colour == 4) | (colour == 6)))
    _, exif, xmp, transparent = tf.while_loop(goes_on, step, start)
    return _without_mark(exif), _uncompressed(xmp), transparent


def _without_mark(exif: tf.Tensor) -> tf.Tensor:
    return tf.where(starts_with(exif, rules.EXIF_MARK), piece(exif, len(rules.EXIF_MARK), tf.strings.length(exif)),
                    exif)


def _uncompressed(text: tf.Tensor) -> tf.Tensor:
    """The text of a PNG's iTXt chunk with XMP, which may be compressed."""
    begin = len(rules.PNG_XMP_KEYWORD) + 1

    def inflated() -> tf.Tensor:
        # Behind the flag and the method lie a language and a keyword, each ended by a zero; mostly empty.
        packed = piece(text, begin + 2, tf.strings.length(text))
        return tf.io.decode_compressed(tf.strings.regex_replace(packed, r"^[^\x00]*\x00[^\x00]*\x00", ""), "ZLIB")

    return tf.cond(piece(text, begin, 1) == b"\1", inflated, lambda: text)


def orientation_of(exif: tf.Tensor, xmp: tf.Tensor) -> Any:
    """`orientation.orientation` of metadata without EXIF's mark: int32."""
    by_exif, by_xmp = _of_exif(exif), _of_xmp(xmp)
    return tf.where(by_exif > 0, by_exif, tf.maximum(1, by_xmp))


def _of_exif(tiff: tf.Tensor) -> Any:
    """1 to 8, or 0 where the first directory doesn't say."""
    order = piece(tiff, 0, 4)
    big_endian = order == b"MM\0*"

    def read() -> Any:
        first = numbers_of(tf.strings.substr(tiff, 4, 4), big_endian, 4)[0]
        size = tf.strings.length(tiff)
        return tf.cond((first >= 0) & (first <= size - 2), lambda: _of_directory(tiff, first, big_endian),
                       lambda: tf.constant(0))

    known = ((order == b"II*\0") | big_endian) & (tf.strings.length(tiff) >= 8)
    return tf.cond(known, read, lambda: tf.constant(0))


def _of_directory(tiff: tf.Tensor, first: Any, big_endian: Any) -> Any:
    """What the directory at a place of a TIFF structure says."""
    count = numbers_of(tf.strings.substr(tiff, first, 2), big_endian, 2)[0]
    count = tf.minimum(count, (tf.strings.length(tiff) - first - 2) // 12)
    entries = tf.reshape(tf.io.decode_raw(tf.strings.substr(tiff, first + 2, 12 * count), tf.uint8), [-1, 12])

    def column(begin: int, length: int) -> Any:
        octets: Any = tf.cast(entries[:, begin:begin + length], tf.int32)
        octets = tf.cond(big_endian, lambda: octets, lambda: tf.reverse(octets, [1]))
        return tf.reduce_sum(octets * [[256 ** place for place in range(length - 1, -1, -1)]], 1)

    tags, kinds, lengths = column(0, 2), column(2, 2), column(4, 4)
    values = tf.where(kinds == rules.SHORT, column(8, 2), column(8, 4))
    valid = ((kinds == rules.SHORT) | (kinds == rules.LONG)) & (lengths == 1) & (values >= 1) & (values <= 8)
    of_tag = tf.boolean_mask(tf.where(valid, values, 0), tags == rules.TAG)
    return tf.concat([of_tag, [0]], 0)[0]


def _of_xmp(xmp: tf.Tensor) -> Any:
    """1 to 8, or 0 where the packet doesn't say."""
    found = tf.strings.regex_replace(xmp, rf"^\C*?{rules.XMP_PATTERN}\C*$", r"\1")
    matched = tf.strings.regex_full_match(found, "[1-8]")
    return tf.strings.to_number(tf.where(matched, found, "0"), tf.int32)


def is_plain_gif(data: tf.Tensor) -> Any:
    """Whether a GIF's first image fills all of it and is opaque."""
    flags: Any = tf.cast(tf.io.decode_raw(piece(data, 10, 1), tf.uint8), tf.int32)
    table = tf.where(flags[0] >= 128, 3 * tf.bitwise.left_shift(2, flags[0] % 8), 0)

    def octet(place: Any) -> Any:
        return tf.reduce_sum(tf.cast(tf.io.decode_raw(piece(data, place, 1), tf.uint8), tf.int32))

    def goes_on(place: Any, *_: Any) -> Any:
        return (octet(place) == 0x21) & (place < tf.strings.length(data))

    def step(place: Any, transparent: Any) -> tuple[Any, Any]:
        is_control = octet(place + 1) == 0xF9
        _, end = tf.while_loop(lambda length, _: length > 0,
                               lambda length, at: (octet(at + 1 + length), at + 1 + length),
                               (octet(place + 2), place + 2))
        return end + 1, transparent | (is_control & (octet(place + 3) % 2 == 1))

    place, transparent = tf.while_loop(goes_on, step, (13 + table, tf.constant(False)))
    whole = piece(data, place + 1, 8) == tf.strings.join([tf.constant(b"\0\0\0\0"), piece(data, 6, 4)])
    return whole & ~transparent & (octet(place) == 0x2C)
