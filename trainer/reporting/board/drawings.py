"""Drawings of an evaluation for TensorBoard, by Pillow: with Matplotlib they would take ten times as long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from trainer.process.exit import in_a_line
from trainer.reporting.page.confusion_plot import font

if TYPE_CHECKING:
    from trainer.quality.predictions import Predictions

MISTAKES = 16
_COLUMNS, _PICTURE, _LINE, _GAP = 4, 128, 17, 8  # of the sheet of mistakes: columns, pixels
_SIDE, _LEFT, _BOTTOM = 320, 56, 40  # of the reliability diagram: pixels
_INK, _QUIET, _BAR, _EDGE = (28, 36, 48), (92, 104, 120), (126, 171, 209), (223, 227, 232)


def mistakes_sheet(predictions: Predictions, rows: Sequence[int], images: np.ndarray) -> Image.Image:
    """Wrong answers, four in a row: the image, what it is and what was said, and how sure the model was.

    Args:
        predictions: What was said.
        rows: Rows of the predictions; at least one.
        images: uint8 [rows, height, width, channels].
    """
    width, height = _PICTURE + _GAP, _PICTURE + 3 * _LINE + _GAP
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, -(-len(rows) // _COLUMNS) * height + _GAP), "white")
    draw, letters = ImageDraw.Draw(sheet), font(12)
    for number, (row, pixels) in enumerate(zip(rows, images, strict=True)):
        left, top = _GAP + number % _COLUMNS * width, _GAP + number // _COLUMNS * height
        sheet.paste(_picture(pixels), (left, top))
        label, answer = (predictions.classes[each[row]] for each in (predictions.labels, predictions.predicted))
        for line, (text, color) in enumerate(((label, _INK), (f"→ {answer}", _INK),
                                              (f"{predictions.confidence[row]:.1%} sure", _QUIET))):
            draw.text((left, top + _PICTURE + 2 + line * _LINE), _shortened(in_a_line(text), letters), color, letters)
    return sheet


def reliability_diagram(bins: Sequence[Mapping[str, Any]]) -> Image.Image:
    """A bar for the accuracy in each bin of confidence, and the line on which it would be.

    Args:
        bins: The bins that aren't empty, as `figures_of` returns them.
    """
    image = Image.new("RGB", (_LEFT + _SIDE + 3 * _GAP, _SIDE + _BOTTOM + 3 * _GAP), "white")
    draw, letters, low = ImageDraw.Draw(image), font(12), _GAP + _SIDE
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        along = round(tick * _SIDE)
        draw.line((_LEFT, low - along, _LEFT + _SIDE, low - along), _EDGE)
        draw.text((_LEFT - _GAP, low - along), f"{tick:.0%}", _QUIET, letters, anchor="rm")
        draw.text((_LEFT + along, low + _GAP), f"{tick:.0%}", _QUIET, letters, anchor="mt")
    for each in bins:
        left, right = (_LEFT + round(each[edge] * _SIDE) for edge in ("from", "to"))
        draw.rectangle((left + 1, low - round(each["accuracy"] * _SIDE), right - 1, low), _BAR)
    draw.line((_LEFT, low, _LEFT + _SIDE, low - _SIDE), _INK, 2)
    draw.text((_LEFT + _SIDE // 2, low + _BOTTOM), "confidence; bars: accuracy", _INK, letters, anchor="mm")
    return image


def _picture(pixels: np.ndarray) -> Image.Image:
    """An image as large as the sheet's; of other numbers of channels than 3 and 4 the first is shown."""
    shown = Image.fromarray(np.ascontiguousarray(pixels[..., :3] if pixels.shape[-1] in (3, 4) else pixels[..., 0]))
    scale = _PICTURE / max(shown.size)
    size = [max(1, round(side * scale)) for side in shown.size]
    return shown.convert("RGB").resize((size[0], size[1]), Image.Resampling.NEAREST if scale > 1 else
                                       Image.Resampling.BILINEAR)


def _shortened(text: str, letters: Any) -> str:
    """A text that is no wider than an image."""
    while letters.getlength(text) > _PICTURE and len(text) > 1:
        text = f"{text[:-2]}…"
    return text
