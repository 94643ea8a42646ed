"""Image files for tests: figures of trainer.data.sources.shapes, written in any format."""

import io
from pathlib import Path

import numpy as np
from conftest import make_runtime
from PIL import Image

from trainer.config import Config
from trainer.data.pipeline import open_feed
from trainer.data.sources import shapes
from trainer.plan import Job, make_plan

CLASSES = shapes.CLASSES


def figures(count, split=0, side=32):
    """(uint8 [count, side, side, 3], labels), all classes in turn."""
    images, labels = shapes.render_images(0, split, count)
    if side != shapes.SIDE:
        images = np.stack([np.asarray(Image.fromarray(image).resize((side, side))) for image in images])
    return images, labels


def encode(image, kind="PNG", **options):
    """The bytes of an image file."""
    written = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(written, kind, **options)
    return written.getvalue()


def photo(height, width, seed=0):
    """A smooth colourful image, uint8 [height, width, 3], that every turn or shift changes."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def class_folders(root, count=40, ending="png", kind="PNG", side=32, split=0, classes=CLASSES):
    """Writes images as root/CLASS/INDEX.ending; returns the paths in the order of their names."""
    images, labels = figures(count, split, side)
    paths = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = Path(root) / classes[label % len(classes)] / f"{index:05d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image, kind))
        paths.append(path)
    return sorted(paths)


def turned(image, orientation):
    """A JPEG whose stored pixels must be turned as EXIF says to show `image`."""
    undo = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}[orientation]
    stored = Image.fromarray(image)
    stored = stored.transpose(undo) if undo is not None else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(stored, "JPEG", quality=97, subsampling=0, exif=exif)


def png_header(width, height):
    """A PNG that claims a size and holds nothing."""
    import struct
    import zlib

    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(part) - 4) + part +
                                           struct.pack(">I", zlib.crc32(part)) for part in (chunk, data, b"IEND"))


def batches(data, replicas=1, batch_size=8, epochs=1.0):
    """What training reads: (ids, seeds, images, labels, mask) for each step."""
    config = Config(batch_size=batch_size, epochs=epochs)
    plan = make_plan(config, data.train.size, replicas)
    iterators = open_feed(Job(config, plan, make_runtime(replicas), data), first_step=0).iterators
    return [[np.concatenate([part.numpy() for part in parts]) for parts in zip(*step, strict=True)]
            for step in zip(*iterators, strict=True)]
