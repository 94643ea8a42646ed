"""What an image file is, from its header; and its pixels, by the slow decoder that reads everything.

Headers are read and odd images decoded by Pillow; JPEG and PNG are decoded by TensorFlow (tf_decoder.py).
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from trainer.data.images.orientation import orientation
from trainer.errors import raise_if_transient

MOST_PIXELS = 100_000_000
# How an image is decoded: by TensorFlow's JPEG or PNG decoder (a PNG that is partly transparent in another way), or by
# Pillow. Indexes of records hold these numbers.
JPEG, PNG, OTHER, TRANSPARENT_PNG = range(4)
# Bits of `ImageHeader.traits`: one channel is enough; more than 8 bits a channel; the model saw it otherwise before
# version 2 of `pixels` (storage/bit_versions.py).
GREY, DEEP, SEEN_OTHERWISE = 1, 2, 4
# What Pillow opens and isn't read: what runs another program, moving pictures, containers and measurements.
_NOT_READ = {"EPS", "WMF", "FPX", "MIC", "MPEG", "FLI", "HDF5", "GRIB", "BUFR", "FITS", "IPTC", "PCD", "SPIDER",
             "MCIDAS", "IMT", "XVTHUMB", "PALM", "PDF", "GBR", "FTEX", "BLP", "PIXAR"}
# Nothing marks their files, so they are tried last.
_WITHOUT_MARK = ("TGA",)
_LAYERED = ("MPO", "PSD", "ICNS", "ICO", "CUR")  # several images in a file are no animation there
_TAIL = 4096  # last bytes of a file that may hold a JPEG's end marker: some cameras write something behind it
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}


class ImageHeader(NamedTuple):
    """What a header says.

    Args:
        kind: JPEG, PNG, TRANSPARENT_PNG or OTHER.
        width, height: As displayed, in pixels.
        orientation: 1 to 8 (TIFF 6.0, tag 274): how stored pixels are to be turned; 1 for not at all.
        traits: The sum of GREY, DEEP and SEEN_OTHERWISE, of those that hold.
        problem: What is wrong with the image, in a few words, or None.
    """

    kind: int
    width: int
    height: int
    orientation: int
    traits: int
    problem: str | None


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read; those whose files have no mark last."""
    Image.init()
    return (*sorted(set(Image.OPEN) - _NOT_READ - set(_WITHOUT_MARK)), *_WITHOUT_MARK)


@functools.cache
def endings() -> tuple[str, ...]:
    """How names of image files end, in small letters."""
    known = set(formats())
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in known))


def read_header(file: IO[bytes] | Path | str) -> ImageHeader:
    """Reads an image's header, and as little else as possible.

    Args:
        file: An open binary file, or a path.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's own, lower pixel limit
        try:
            with Image.open(file, formats=formats()) as image:
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
    return ImageHeader(OTHER, 1, 1, 1, 0, problem)


def _unidentified(file: IO[bytes] | Path | str) -> str:
    """What is wrong with a file of no known format."""
    size = os.path.getsize(file) if isinstance(file, (str, os.PathLike)) else file.seek(0, os.SEEK_END)
    return "it is not an image of a kind that is read (JPEG, PNG, WebP, TIFF, …)" if size else "it is empty"


def _header_of(image: ImageFile.ImageFile) -> ImageHeader:
    width, height = image.size
    turn, by_xmp = _orientation_of(image)
    transparent = "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    deep = image.mode[0] == "I"
    grey = deep or image.mode in ("1", "L", "LA", "La")
    traits = GREY * grey + DEEP * deep + SEEN_OTHERWISE * (transparent or by_xmp)
    kind, problem = OTHER, None
    if image.format in ("JPEG", "MPO"):
        kind = JPEG if image.mode in ("RGB", "L") else OTHER
        assert image.fp is not None
        problem = None if _has_end(image.fp) else _decoding_problem(image)
    elif image.format == "PNG":
        kind = TRANSPARENT_PNG if transparent else PNG
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        problem = f"its pixels are {'fractions' if image.mode == 'F' else '32-bit numbers'}; 8 and 16 bits are read"
    if image.format not in _LAYERED and getattr(image, "is_animated", False):
        frames = image.n_frames  # pyright: ignore[reportAttributeAccessIssue]  images that can be animated have it
        problem = f"it has {frames} pages" if image.format == "TIFF" else f"it is animated ({frames} frames)"
    if width * height > MOST_PIXELS:
        problem = f"it has {width:,} × {height:,} pixels; {MOST_PIXELS:,} is the most"
    if turn >= 5:
        width, height = height, width
    return ImageHeader(kind, width, height, turn, traits, problem)


def _orientation_of(image: ImageFile.ImageFile) -> tuple[int, bool]:
    """(the orientation, whether version 1 of `pixels` knew another one), by what stands before the pixels."""
    if image.format == "TIFF":
        return 1, False  # Pillow turns these itself
    exif = image.info.get("exif", b"")
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", "").encode()  # some PNGs have only this
    both = orientation(exif, xmp)
    return both, bool(xmp) and both != orientation(exif, b"")


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


def decoding_problem(data: bytes) -> str | None:
    """What Pillow finds wrong when it decodes all of an image in whose header nothing is wrong, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            return _decoding_problem(image)


def decode(data: bytes) -> np.ndarray:
    """Decodes any image in which `read_header` finds no problem.

    Args:
        data: The file's bytes.

    Returns:
        uint8 [height, width, 3], upright, the first image of several; over white where it is transparent.
    """
    with Image.open(io.BytesIO(data), formats=formats()) as image:
        if image.width * image.height > MOST_PIXELS:  # only an index can have said otherwise
            raise ValueError(f"it has {image.width:,} × {image.height:,} pixels; {MOST_PIXELS:,} is the most")
        turn, _ = _orientation_of(image)
        image.load()
        pixels = _over_white(image)
        return np.asarray(Image.fromarray(pixels).transpose(_TURNS[turn])) if turn > 1 else pixels


def _over_white(image: Image.Image) -> np.ndarray:
    """uint8 [height, width, 3] of a loaded image."""
    if image.mode[0] == "I":  # 16 bits a pixel; Pillow's own conversion would clip
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    if "transparency" not in image.info and not image.mode.upper().endswith("A"):
        return np.asarray(image.convert("RGB"))
    colours = np.asarray(image.convert("RGBA")).astype(np.int32)
    alpha = colours[..., 3:]
    return ((colours[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def deepest(data: bytes) -> int:
    """The greatest value of a grey image of 16 bits: 0 to 65,535."""
    with Image.open(io.BytesIO(data), formats=formats()) as image:
        return int(np.asarray(image).max())


def is_lossless(data: bytes) -> bool:
    """Whether an image's format loses nothing of its pixels."""
    with Image.open(io.BytesIO(data), formats=formats()) as image:
        return image.format not in ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
