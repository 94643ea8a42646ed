"""Which part of a large image the model sees: boxes, worked out for many images at once. No TensorFlow.

Boxes are int32 [n, 4] of top, left, height, width in pixels. Training with `--augment=crop` sees a random
box (Szegedy et al. 2015, §6: 8 to 100 % of the area, sides from 3:4 to 4:3), everything else the box in the
middle: 7/8 of the shorter side, as is usual with images of 224 pixels, or the largest square where the
model's images are small. With `--resize=squeeze` or `pad` all of the image is in the box.
"""

from typing import NamedTuple

import numpy as np

from trainer.data.order import hash_examples

LARGE = 64  # images of more pixels a side are cropped as photographs are, smaller ones as CIFAR-10's
ATTEMPTS = 10
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


class View(NamedTuple):
    """How a model sees images.

    Args:
        height, width: Of the model's images, in pixels.
        channels: Of the model's images: 3 for red, green and blue; 1 for grey.
        resize: How an image becomes one of that height and width, `--resize`: crop, squeeze or pad. Where height and
            width differ, crop squeezes.
    """

    height: int
    width: int
    channels: int
    resize: str

    @property
    def crops(self) -> bool:
        """Whether the model sees the square in the middle."""
        return self.resize == "crop" and self.height == self.width

    @property
    def is_large(self) -> bool:
        """Whether the model's images are cropped as photographs are."""
        return min(self.height, self.width) > LARGE


def central_boxes(heights: np.ndarray, widths: np.ndarray, view: View) -> np.ndarray:
    """The boxes that evaluation sees.

    Args:
        heights, widths: int [n], of the images.
        view: How the model sees them. A square model sees an image of its size as it is.

    Returns:
        int32 [n, 4].
    """
    if not view.crops:
        return np.stack([np.zeros_like(heights), np.zeros_like(heights), heights, widths], 1).astype(np.int32)
    size, shorter = view.height, np.minimum(heights, widths)
    whole = (heights == size) & (widths == size)
    side = shorter if size <= LARGE else np.where(whole, shorter, np.maximum(1, np.rint(shorter * 7 / 8)))
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], 1).astype(np.int32)


def random_boxes(heights: np.ndarray, widths: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Random boxes; where ten attempts find none that fits, the largest box in the middle with sides that are allowed.

    Args:
        heights, widths: int [n], of the images.
        seeds: uint32 [n].

    Returns:
        int32 [n, 4].
    """
    attempts = np.arange(ATTEMPTS)[:, None]
    area, ratio, top, left = (hash_examples(stream, attempts, seeds) / 2.0**64 for stream in range(4))
    area = (AREA[0] + area * (AREA[1] - AREA[0])) * heights * widths
    ratio = np.exp(np.log(RATIO[0]) + ratio * np.log(RATIO[1] / RATIO[0]))
    tall, wide = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (tall >= 1) & (wide >= 1) & (tall <= heights) & (wide <= widths)
    boxes = np.stack([np.floor(top * (heights - tall + 1)), np.floor(left * (widths - wide + 1)), tall, wide], -1)
    chosen = boxes[fits.argmax(0), np.arange(len(heights))]
    tall = np.minimum(heights, np.rint(widths / RATIO[0]))
    wide = np.minimum(widths, np.rint(heights * RATIO[1]))
    fallback = np.stack([(heights - tall) // 2, (widths - wide) // 2, tall, wide], 1)
    return np.where(fits.any(0)[:, None], chosen, fallback).astype(np.int32)


def squeezed_random_boxes(heights: np.ndarray, widths: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Boxes that are random ones once the images are squeezed to squares: arguments and result as `random_boxes`."""
    side = np.maximum(heights, widths)
    top, left, tall, wide = random_boxes(side, side, seeds).T
    top, tall, left, wide = top * heights // side, tall * heights // side, left * widths // side, wide * widths // side
    return np.stack([top, left, np.maximum(1, tall), np.maximum(1, wide)], 1).astype(np.int32)


def targets(boxes: np.ndarray, view: View) -> np.ndarray:
    """The sizes that boxes are resized to: all of the model's image, or with `--resize=pad` what keeps their shape.

    Args:
        boxes: int32 [n, 4], in images as displayed.
        view: How the model sees the images.

    Returns:
        int32 [n, 2]: height, width.
    """
    model = np.array([view.height, view.width])
    if view.resize != "pad":
        return np.broadcast_to(model, (len(boxes), 2)).astype(np.int32)
    scale = (model / boxes[:, 2:]).min(1, keepdims=True)
    return np.clip(np.rint(boxes[:, 2:] * scale), 1, model).astype(np.int32)


def mirrored(seeds: np.ndarray) -> np.ndarray:
    """Which images are mirrored left to right: uint64 [n], 0 or 1, of seeds uint32 [n]."""
    return hash_examples(4, 0, seeds) & np.uint64(1)


def stored_boxes(boxes: np.ndarray, heights: np.ndarray, widths: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Where boxes lie in the pixels that files hold, which EXIF may want turned before they are shown.

    Args:
        boxes: int32 [n, 4], in images as displayed.
        heights, widths: int [n], as displayed.
        orientations: int [n], 1 to 8; `tf_decoder.upright` turns images by them.

    Returns:
        int32 [n, 4].
    """
    top, left, tall, wide = boxes.T
    bottom, right = heights - top - tall, widths - left - wide
    # For each orientation: (stored top, stored left), by where the stored first row and column are displayed.
    origins = {1: (top, left), 2: (top, right), 3: (bottom, right), 4: (bottom, left),
               5: (left, top), 6: (right, top), 7: (right, bottom), 8: (left, bottom)}
    stored = boxes.copy()
    for orientation, (row, column) in origins.items():
        mask = orientations == orientation
        stored[mask, 0], stored[mask, 1] = row[mask], column[mask]
    turned = orientations >= 5
    stored[turned, 2], stored[turned, 3] = wide[turned], tall[turned]
    return stored


def reductions(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How often a JPEG decoder may halve boxes so that both sides keep the pixels that the model sees.

    Args:
        boxes: int32 [n, 4], in images as displayed.
        sizes: int32 [n, 2], as `targets` returns them.

    Returns:
        int32 [n]: 0, 1, 2 or 3.
    """
    room = np.maximum(1, (boxes[:, 2:] // sizes).min(1))
    return np.minimum(3, np.floor(np.log2(room))).astype(np.int32)
