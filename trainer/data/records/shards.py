"""Writes images as TFRecord shards, with the keys of TensorFlow's ImageNet records.

    image/encoded, image/format (JPEG or PNG), image/height, image/width, image/channels, image/colorspace,
    image/class/label (from 1, as there), image/class/text, image/class/synset, image/filename

An image goes in as it is if anybody reads it right: an upright JPEG in RGB or grey, or an opaque PNG of up to 8 bits.
Anything else is decoded, turned upright and encoded again: as PNG where nothing was lost so far, else as JPEG.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from trainer.data.images import pillow_reader, tf_decoder
from trainer.data.records import index
from trainer.errors import raise_if_transient
from trainer.process.tf_import import tf
from trainer.storage import durable

FIRST_LABEL = 1
_HEADER = 12  # bytes of a TFRecord before its content: a length and its CRC
_FOOTER = 4
_QUALITY = 95


class Source(NamedTuple):
    """An image to be written.

    Args:
        path: The image file.
        name: The file's name, as a user reads it.
        label: From 0.
        text: The class's name.
    """

    path: str
    name: str
    label: int
    text: str


def write_shard(path: Path, sources: Iterable[Source],
                resize_shorter: int = 0) -> tuple[np.ndarray, dict[str, str], bool]:
    """Writes a shard, durably.

    Args:
        path: The shard's path; it exists once the shard is complete.
        sources: The images of the shard.
        resize_shorter: Shrink images so that their shorter side has this many pixels; 0: don't.

    Returns:
        (rows of `index.ROW` with shard 0; names of images that were left out to what is wrong with them; whether all
        images are grey).
    """
    rows, left_out, is_grey = [], {}, True
    staged = path.with_name(f".{path.name}.part")
    with tf.io.TFRecordWriter(str(staged)) as writer:
        begin = 0
        for source in sources:
            data, before, problem = _content(source.path)
            if problem:
                left_out[source.name] = problem
                continue
            encoded, header = _encode(data, before, resize_shorter)
            is_grey &= bool(header.traits & pillow_reader.GREY)
            record = _example(encoded, header, source)
            writer.write(record)
            offset = begin + _HEADER + record.index(encoded)
            rows.append((0, offset, len(encoded), zlib.crc32(encoded), source.label, header.width, header.height,
                         header.kind, header.orientation))
            begin += _HEADER + len(record) + _FOOTER
    durable.flush(staged)
    os.replace(staged, path)
    durable.flush(path.parent)
    return np.array(rows, index.ROW), left_out, is_grey


def _content(path: str) -> tuple[bytes, pillow_reader.ImageHeader, str | None]:
    """(a file's bytes, their header, what is wrong with them or None)."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise_if_transient(error, path)
        return b"", pillow_reader.read_header(io.BytesIO()), f"it can't be read: {error.strerror}"
    header = pillow_reader.read_header(io.BytesIO(data))
    return data, header, tf_decoder.problem_of(data, header)


def _encode(data: bytes, header: pillow_reader.ImageHeader,
            resize_shorter: int) -> tuple[bytes, pillow_reader.ImageHeader]:
    """(bytes that anybody reads right, their header)."""
    shrinks = 0 < resize_shorter < min(header.width, header.height)
    if (header.kind in (pillow_reader.JPEG, pillow_reader.PNG) and header.orientation == 1 and not shrinks
            and not header.traits & pillow_reader.DEEP):
        return data, header
    pixels, lossless = tf_decoder.whole(data, header), pillow_reader.is_lossless(data)
    image = Image.fromarray(pixels[..., 0] if header.traits & pillow_reader.GREY else pixels)
    if shrinks:
        scale = resize_shorter / min(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    if lossless and not shrinks:
        image.save(written, "PNG")
    else:
        image.save(written, "JPEG", quality=_QUALITY, subsampling=0)
    return written.getvalue(), pillow_reader.read_header(written)


def _example(encoded: bytes, header: pillow_reader.ImageHeader, source: Source) -> bytes:
    """A serialized `tf.train.Example`; its fields in one order, so that the same image gives the same bytes."""
    def of_bytes(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def of_int(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    text = source.text.encode()
    features = {
        "image/encoded": of_bytes(encoded),
        "image/format": of_bytes(b"JPEG" if header.kind == pillow_reader.JPEG else b"PNG"),
        "image/height": of_int(header.height), "image/width": of_int(header.width), "image/channels": of_int(3),
        "image/colorspace": of_bytes(b"RGB"), "image/class/label": of_int(source.label + FIRST_LABEL),
        "image/class/text": of_bytes(text), "image/class/synset": of_bytes(text),
        "image/filename": of_bytes(source.name.encode())}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
