"""Writes images as TFRecord shards, with the keys of TensorFlow's ImageNet records.

    image/encoded, image/format (JPEG or PNG), image/height, image/width, image/channels, image/colorspace,
    image/class/label (from 1, as there), image/class/text, image/class/synset, image/filename

An image goes in as it is if TensorFlow can read it right: an upright JPEG in RGB or grey, or a PNG of 8 bits.
Anything else is decoded, turned upright and encoded again: as PNG where nothing was lost so far, else as JPEG.
"""

import io
import os
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from trainer.data.images import pillow_reader
from trainer.data.records import index
from trainer.process.tf_import import tf
from trainer.storage import durable

FIRST_LABEL = 1
_HEADER = 12  # bytes of a TFRecord before its content: a length and its CRC
_FOOTER = 4
_QUALITY = 95


class Source(NamedTuple):
    """An image to be written. path: Of the file. name: As people know it. label: From 0. text: Its class."""

    path: str
    name: str
    label: int
    text: str


def write_shard(path, sources, resize_shorter=0):
    """Writes a shard, durably.

    Args:
        path: Where; it is there when all of it is.
        sources: The `Source`s.
        resize_shorter: Shrink images so that their shorter side has this many pixels; 0: don't.

    Returns:
        (rows of `index.ROW` with shard 0; name to what is wrong with those that were left out).
    """
    rows, left_out = [], {}
    staged = path.with_name(f".{path.name}.part")
    with tf.io.TFRecordWriter(str(staged)) as writer:
        begin = 0
        for source in sources:
            data, problem = _content(source.path)
            if problem:
                left_out[source.name] = problem
                continue
            encoded, look = _encode(data, resize_shorter)
            record = _example(encoded, look, source)
            writer.write(record)
            offset = begin + _HEADER + record.index(encoded)
            rows.append((0, offset, len(encoded), zlib.crc32(encoded), source.label, look.width, look.height,
                         look.kind, look.orientation))
            begin += _HEADER + len(record) + _FOOTER
    durable.flush(staged)
    os.replace(staged, path)
    durable.flush(path.parent)
    return np.array(rows, index.ROW), left_out


def _content(path):
    """(a file's bytes, what is wrong with them or None)."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return b"", f"it can't be read: {error.strerror}"
    return data, pillow_reader.validate(data)


def _encode(data, resize_shorter):
    """(bytes that TensorFlow reads right, their `images.ImageHeader`)."""
    look = pillow_reader.look(io.BytesIO(data))
    shrinks = 0 < resize_shorter < min(look.width, look.height)
    if look.kind != pillow_reader.OTHER and look.orientation == 1 and not shrinks:
        return data, look
    image, lossless = Image.fromarray(pillow_reader.decode(data)), _is_lossless(data)
    if shrinks:
        scale = resize_shorter / min(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    written = io.BytesIO()
    if lossless and not shrinks:
        image.save(written, "PNG")
    else:
        image.save(written, "JPEG", quality=_QUALITY, subsampling=0)
    return written.getvalue(), pillow_reader.look(written)


def _is_lossless(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.format in ("PNG", "BMP", "GIF")


def _example(encoded, look, source):
    """A serialized `tf.train.Example`; its fields in one order, so that the same image gives the same bytes."""
    def words(text):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))

    def number(value):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    text = source.text.encode()
    features = {
        "image/encoded": words(encoded), "image/format": words(b"JPEG" if look.kind == pillow_reader.JPEG else b"PNG"),
        "image/height": number(look.height), "image/width": number(look.width), "image/channels": number(3),
        "image/colorspace": words(b"RGB"), "image/class/label": number(source.label + FIRST_LABEL),
        "image/class/text": words(text), "image/class/synset": words(text),
        "image/filename": words(source.name.encode())}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
