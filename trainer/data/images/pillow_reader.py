"""What an image file is, from its header; and its pixels, by the slow decoder that reads everything.

Headers are read and odd images decoded by Pillow; the common kinds are decoded by TensorFlow (tf_decoder.py).
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError, WebPImagePlugin

from trainer.errors import raise_if_transient

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
MOST_PIXELS = 100_000_000
# How an image is decoded: by TensorFlow's JPEG or PNG decoder, or by Pillow.
JPEG, PNG, OTHER = range(3)
# WebP by its module, because Pillow knows it only once that module is imported.
_FORMATS = ("JPEG", "PNG", WebPImagePlugin.WebPImageFile.format or "WEBP", "BMP", "GIF")
_TAIL = 4096  # last bytes of a file that may hold a JPEG's end marker: some cameras write something behind it


class ImageHeader(NamedTuple):
    """What a header says.

    Args:
        kind: JPEG, PNG or OTHER.
        width, height: As displayed, in pixels.
        orientation: EXIF's, 1 to 8 (TIFF 6.0, tag 274): how stored pixels are to be turned; 1 for not at all.
        problem: What is wrong with the image, in a few words, or None.
    """

    kind: int
    width: int
    height: int
    orientation: int
    problem: str | None


def read_header(file: IO[bytes] | Path | str) -> ImageHeader:
    """Reads an image's header, and as little else as possible.

    Args:
        file: An open binary file, or a path.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's own, lower pixel limit
        try:
            with Image.open(file, formats=_FORMATS) as image:
                return _header_of(image)
        except UnidentifiedImageError:
            return _unusable(_unidentified(file))
        except Image.DecompressionBombError:
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            return _unusable(f"it has more than {limit:,} pixels; {MOST_PIXELS:,} is the most")
        except OSError as error:
            raise_if_transient(error, file)
            return _unusable(f"it can't be read: {error.strerror}" if error.errno else f"it is damaged: {error}")
        except Exception as error:  # a damaged header raises nearly anything
            return _unusable(f"its header is damaged ({type(error).__name__}: {error})")


def _unusable(problem: str) -> ImageHeader:
    """The header of an image that can't be used."""
    return ImageHeader(OTHER, 1, 1, 1, problem)


def _unidentified(file: IO[bytes] | Path | str) -> str:
    """What is wrong with a file of no known format."""
    size = os.path.getsize(file) if isinstance(file, (str, os.PathLike)) else file.seek(0, os.SEEK_END)
    return "it is not an image: neither JPEG, PNG, WebP, BMP nor GIF" if size else "it is empty"


def _header_of(image: ImageFile.ImageFile) -> ImageHeader:
    width, height = image.size
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if "exif" in image.info else 1
    orientation = orientation if orientation in range(1, 9) else 1
    kind, problem = OTHER, None
    if image.format in ("JPEG", "MPO"):
        kind = JPEG if image.mode in ("RGB", "L") else OTHER
        assert image.fp is not None
        problem = None if _has_end(image.fp) else _decoding_problem(image)
    elif image.format == "PNG" and image.mode in ("RGB", "L"):
        kind = PNG
    if image.format != "MPO" and getattr(image, "is_animated", False):
        frames = image.n_frames  # pyright: ignore[reportAttributeAccessIssue]  images that can be animated have it
        problem = f"it is animated ({frames} frames)"
    if width * height > MOST_PIXELS:
        problem = f"it has {width:,} × {height:,} pixels; {MOST_PIXELS:,} is the most"
    if orientation >= 5:
        width, height = height, width
    return ImageHeader(kind, width, height, orientation, problem)


def _has_end(file: IO[bytes]) -> bool:
    """Whether a JPEG's last bytes hold its end marker."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    return b"\xff\xd9" in file.read()


def _decoding_problem(image: Image.Image) -> str | None:
    """What goes wrong when all of an image is decoded, in a few words; None if nothing does."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        return None
    try:
        image.load()
    except Exception as error:
        return f"it can't be decoded: {error}"
    return None


def validate(data: bytes) -> str | None:
    """Decodes all of an image to find what is wrong with it.

    Args:
        data: The file's bytes.

    Returns:
        What is wrong with the image, in a few words, or None.
    """
    header = read_header(io.BytesIO(data))
    if header.problem:
        return header.problem
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return _decoding_problem(image)


def decode(data: bytes) -> np.ndarray:
    """Decodes any image in which `read_header` finds no problem.

    Args:
        data: The file's bytes.

    Returns:
        uint8 [height, width, 3], upright, the first image of several.
    """
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip
            grey = (np.asarray(upright).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, -1)
        if "transparency" in upright.info:
            upright = upright.convert("RGBA")  # a palette's transparent colours need this step between
        return np.asarray(upright.convert("RGB"))
