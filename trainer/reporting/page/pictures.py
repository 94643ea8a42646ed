"""Images of the data as part of a page."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

_MOST_PIXELS = 112  # of a side: a phone shows them no larger


class Picture(NamedTuple):
    """An image with what stands below it.

    Args:
        source: A data: address.
        title: The first line below it, in bold.
        text: The second line.
    """

    source: str
    title: str
    text: str


def data_address(image: np.ndarray) -> str:
    """An image as the address of itself.

    Args:
        image: uint8 [height, width, channels].

    Returns:
        A data: address of a PNG, with sides of up to 112 pixels.
    """
    channels = image.shape[-1]
    # Of other numbers of channels, such as those of satellites, the first is shown.
    picture = Image.fromarray(np.ascontiguousarray(image if channels in (3, 4) else image[..., 0]))
    picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    written = io.BytesIO()
    picture.save(written, "PNG")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
