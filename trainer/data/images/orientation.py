"""How an image is to be turned before it is shown: EXIF's tag 274, or else XMP's property of the same meaning.

1 to 8 as TIFF 6.0 has them. The served model (export/served_files.py) reads the same bytes by the same rules in graph
operations; a test holds one against the other.
"""

from __future__ import annotations

import re
import struct

EXIF_MARK = b"Exif\0\0"
XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
PNG_XMP_KEYWORD = b"XML:com.adobe.xmp"
TAG, SHORT, LONG = 274, 3, 4
XMP_PATTERN = r"""tiff:Orientation[ \t\r\n]*(?:=[ \t\r\n]*["']|>)[ \t\r\n]*([1-8])"""
_XMP = re.compile(XMP_PATTERN.encode())


def orientation(exif: bytes, xmp: bytes) -> int:
    """The orientation that an image's metadata say.

    Args:
        exif: A TIFF structure, with EXIF's mark before it or without; b"" for none.
        xmp: An XMP packet; b"" for none.

    Returns:
        1 to 8: EXIF's if it says one, else XMP's, else 1.
    """
    return _of_exif(exif.removeprefix(EXIF_MARK)) or _of_xmp(xmp) or 1


def _of_exif(tiff: bytes) -> int:
    """1 to 8, or 0 where the first directory doesn't say: a single number of the type SHORT or LONG."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 0
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    if first + 2 > len(tiff):
        return 0
    (count,) = struct.unpack_from(f"{order}H", tiff, first)
    for entry in range(first + 2, min(first + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, numbers = struct.unpack_from(f"{order}HHI", tiff, entry)
        if tag == TAG:
            value = struct.unpack_from(f"{order}{'H' if kind == SHORT else 'I'}", tiff, entry + 8)[0]
            return value if kind in (SHORT, LONG) and numbers == 1 and 1 <= value <= 8 else 0
    return 0


def _of_xmp(xmp: bytes) -> int:
    """1 to 8, or 0 where the packet doesn't say."""
    found = _XMP.search(xmp)
    return int(found[1]) if found else 0
