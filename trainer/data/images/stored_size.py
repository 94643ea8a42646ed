"""The size that a JPEG or PNG says of itself, found in its first bytes: much faster than a library that opens it."""

from __future__ import annotations

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_WITHOUT_LENGTH = {*range(0xD0, 0xD8), 0x01, 0x00}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of frames (ITU-T T.81, table B.1)


def stored_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels of a JPEG or PNG as it is stored; None if `data` is neither, or is damaged."""
    if data[:8] == _PNG:
        return struct.unpack_from(">II", data, 16) if len(data) >= 24 else None
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF or data[place + 1] == 0xFF:
            place += 1
            continue
        marker = data[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 if marker in _WITHOUT_LENGTH else 2 + max(2, struct.unpack_from(">H", data, place + 2)[0])
    return None
