"""What an image file is, from its header; and its pixels, the slow way that reads everything.

Headers are read and odd images decoded by Pillow; the common kinds are decoded by TensorFlow (decoding.py).
"""

import io
import os
import warnings
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, WebPImagePlugin

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
MOST_PIXELS = 100_000_000
# How an image is decoded: by TensorFlow's JPEG or PNG decoder, or by Pillow.
JPEG, PNG, OTHER = range(3)
# WebP by its module, because Pillow knows it only once that is there.
_FORMATS = ("JPEG", "PNG", WebPImagePlugin.WebPImageFile.format, "BMP", "GIF")
_TAIL = 4096  # bytes at whose end a JPEG's end is looked for: some cameras write something behind it


class ImageHeader(NamedTuple):
    """What a header says.

    kind: JPEG, PNG or OTHER. width, height: As displayed, in pixels. orientation: EXIF's, 1 to 8 (TIFF 6.0,
    tag 274): how stored pixels are to be turned; 1 for not at all. problem: What is wrong with it, in a few
    words, or None.
    """

    kind: int
    width: int
    height: int
    orientation: int
    problem: str | None


def look(file):
    """Reads an image's header, and as little else as possible.

    Args:
        file: An open binary file, or a path.

    Returns:
        A `ImageHeader`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's own, lower pixel limit
        try:
            with Image.open(file, formats=_FORMATS) as image:
                return _look(image)
        except UnidentifiedImageError:
            return _no_image(_unidentified(file))
        except Image.DecompressionBombError:
            return _no_image(f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels; {MOST_PIXELS:,} is the most")
        except OSError as error:
            return _no_image(f"it can't be read: {error.strerror}" if error.errno else f"it is damaged: {error}")
        except Exception as error:  # a damaged header raises nearly anything
            return _no_image(f"its header is damaged ({type(error).__name__}: {error})")


def _no_image(problem):
    return ImageHeader(OTHER, 1, 1, 1, problem)


def _unidentified(file):
    by_name = isinstance(file, (str, bytes, os.PathLike))
    size = os.path.getsize(file) if by_name else file.seek(0, os.SEEK_END)
    return "it is not an image: neither JPEG, PNG, WebP, BMP nor GIF" if size else "it is empty"


def _look(image):
    width, height = image.size
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if "exif" in image.info else 1
    orientation = orientation if orientation in range(1, 9) else 1
    kind, problem = OTHER, None
    if image.format in ("JPEG", "MPO"):
        kind = JPEG if image.mode in ("RGB", "L") else OTHER
        problem = None if _has_end(image.fp) else _fault(image)
    elif image.format == "PNG" and image.mode in ("RGB", "L"):
        kind = PNG
    if image.format != "MPO" and getattr(image, "is_animated", False):
        problem = f"it is animated ({image.n_frames} frames)"
    if width * height > MOST_PIXELS:
        problem = f"it has {width:,} × {height:,} pixels; {MOST_PIXELS:,} is the most"
    if orientation >= 5:
        width, height = height, width
    return ImageHeader(kind, width, height, orientation, problem)


def _has_end(file):
    """Whether a JPEG's last bytes hold its end marker."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    return b"\xff\xd9" in file.read()


def _fault(image):
    """What goes wrong when all of an image is decoded, in a few words; None if nothing does."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        return None
    try:
        image.load()
    except Exception as error:
        return f"it can't be decoded: {error}"
    return None


def validate(data):
    """All that can be found wrong with an image.

    Args:
        data: The file's bytes.

    Returns:
        A few words, or None.
    """
    found = look(io.BytesIO(data))
    if found.problem:
        return found.problem
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return _fault(image)


def decode(data):
    """Decodes any image that `look` finds nothing wrong with.

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
