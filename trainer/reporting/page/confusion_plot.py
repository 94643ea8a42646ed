"""confusion.png, drawn by Pillow: a tenth of the time that Matplotlib takes for so many small texts."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.storage.durable import write_durably

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_LABELLED, _NUMBERED = 40, 20  # classes up to which the matrix has names, and numbers
_LONGEST = 18  # letters of a name
_CELL, _SMALL_CELL, _GAP = 46, 18, 12  # pixels
_INK, _DARKEST = (28, 36, 48), np.array([8, 48, 107])


def plot_confusion(quality: Mapping[str, Any], path: Path | str) -> None:
    """Draws confusion.png.

    Args:
        quality: As `figures_of` returns it, with a confusion matrix.
        path: The PNG to write.
    """
    written = io.BytesIO()
    confusion_image(quality).save(written, "PNG")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, written.getvalue())


def confusion_image(quality: Mapping[str, Any]) -> Image.Image:
    """The confusion matrix: a row per class, a column per answer, shaded by the share of the row.

    Args:
        quality: As `figures_of` returns it, with a confusion matrix.
    """
    names, matrix = list(quality["by_class"]), np.array(quality["confusion"])
    count, large, small = len(names), font(17), font(14)
    cell = _CELL if count <= _NUMBERED else _SMALL_CELL
    short = [name if len(name) <= _LONGEST else f"{name[:_LONGEST - 1]}…" for name in names if count <= _LABELLED]
    margin = _GAP + max((int(small.getlength(name)) for name in short), default=0)
    left, top, side = margin + 36, 48, cell * count
    image = Image.new("RGB", (left + side + 2 * _GAP, top + side + margin + 40), "white")
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    colors = (255 - np.sqrt(shares)[..., None] * (255 - _DARKEST)).astype(np.uint8)
    cells = Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST)
    image.paste(cells, (left, top))
    draw = ImageDraw.Draw(image)
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=_INK)
    draw.text((left, _GAP), f"{quality['split']}: {quality['accuracy']:.2%} of {quality['examples']:,}", _INK, large)
    for index, name in enumerate(short):
        middle = index * cell + cell // 2
        draw.text((left - _GAP // 2, top + middle), name, _INK, small, anchor="rm")
        _draw_upright(image, (left + middle, top + side + _GAP // 2), name, small)
    draw.text((left + side // 2, top + side + margin + 20), "said to be", _INK, large, anchor="mm")
    if count <= _NUMBERED:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            draw.text((left + column * cell + cell // 2, top + row * cell + cell // 2), str(matrix[row, column]),
                      "white" if shares[row, column] > 0.3 else _INK, small, anchor="mm")
    return image


def font(size: int) -> FreeTypeFont:
    """The font of Matplotlib's plots, which has most alphabets."""
    # The package isn't imported for it: that takes a second, and reads the user's home.
    package = importlib.util.find_spec("matplotlib")
    assert package and package.origin
    return ImageFont.truetype(Path(package.origin).with_name("mpl-data") / "fonts/ttf/DejaVuSans.ttf", size)


def _draw_upright(image: Image.Image, position: tuple[int, int], text: str, font: FreeTypeFont) -> None:
    """Draws a text that reads from below upwards and ends at a position, its middle there."""
    box = Image.new("RGB", (int(font.getlength(text)) + 2, int(font.size) + 6), "white")
    ImageDraw.Draw(box).text((0, box.height // 2), text, _INK, font, anchor="lm")
    image.paste(box.rotate(90, expand=True), (position[0] - box.height // 2, position[1]))
