"""Ten classes of figures, rendered by the program: a data set that needs no download.

A figure has a random position, size, turn and colour on a background of another colour with a gradient and noise.
Colour and position say nothing about the class, so a linear model gets nowhere near a convolutional one. Figures are
signed distance functions: negative inside, so that an edge can be rendered smoothly by how far a pixel is from it.
"""

from __future__ import annotations

import collections
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.dataset import Dataset, in_memory
from trainer.process import host

if TYPE_CHECKING:
    from trainer.config import Config

CLASSES = ("circle", "square", "triangle", "cross", "ring", "star", "crescent", "bar", "chevron", "frame")
TRAIN, TEST, SIDE = 12_000, 2_000, 32
_CHUNK = 500


def load(config: Config) -> Dataset:
    """Renders 12,000 and 2,000 images of 32×32; of the settings, only seed and validation_fraction matter."""
    return render_dataset(config.seed, validation_fraction=config.validation_fraction)


def render_dataset(seed: int, train: int = TRAIN, test: int = TEST,
                   validation_fraction: float | None = None) -> Dataset:
    """Renders a data set of any size; the first images of a split don't depend on its size.

    Args:
        seed: The seed that all images follow from.
        train, test: Number of images of the splits.
        validation_fraction: `--validation_fraction`; None where it isn't given.
    """
    return in_memory("shapes", CLASSES, render_images(seed, 0, train), render_images(seed, 1, test),
                     validation_fraction=validation_fraction)


def render_images(seed: int, split: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders images of all classes in turn.

    Args:
        seed: The seed that all images follow from.
        split: 0 for train, 1 for test: their images have nothing to do with each other.
        count: Number of images.

    Returns:
        (images uint8 [count, 32, 32, 3], labels int32 [count]).
    """
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(count, dtype=np.int32) % len(CLASSES)

    def render(chunk_index: int) -> None:
        part = images[chunk_index * _CHUNK:(chunk_index + 1) * _CHUNK]
        part[:] = _render_chunk(np.random.default_rng((seed, split, chunk_index)), _CHUNK)[:len(part)]

    with ThreadPoolExecutor(host.cores()) as threads:
        collections.deque(threads.map(render, range(-(-count // _CHUNK))), maxlen=0)
    return images, labels


def _render_chunk(rng: np.random.Generator, n: int) -> np.ndarray:
    """uint8 [n, 32, 32, 3] of the classes in turn; `n` is a multiple of their number."""
    radius = rng.uniform(5.5, 10.5, (n, 1, 1)).astype(np.float32)
    centre = rng.uniform(-1, 1, (2, n, 1, 1)).astype(np.float32) * (SIDE / 2 - 0.85 * radius)
    angle = rng.uniform(-0.6, 0.6, (n, 1, 1)).astype(np.float32)
    axis = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    x, y = axis[None, None, :] - centre[0], axis[None, :, None] - centre[1]
    u, v = (np.cos(angle) * x + np.sin(angle) * y) / radius, (np.cos(angle) * y - np.sin(angle) * x) / radius
    distance = np.empty((n, SIDE, SIDE), np.float32)
    for label, name in enumerate(CLASSES):
        of_class = slice(label, None, len(CLASSES))
        distance[of_class] = _FIGURES[name](u[of_class], v[of_class])
    inside = np.clip(0.5 - distance * radius, 0, 1)[..., None]

    # Any colour on any darker one: a figure is always visible, and its class is in its outline alone.
    ground = rng.uniform(0, 130, (n, 1, 1, 3)).astype(np.float32)
    figure = ground + rng.uniform(50, 125, (n, 1, 1, 3)).astype(np.float32)
    slope = rng.uniform(-1, 1, (2, n, 1, 1, 3)).astype(np.float32)
    ground = ground + slope[0] * axis[None, None, :, None] + slope[1] * axis[None, :, None, None]
    figure = figure - ground  # in place from here on: fresh memory takes longer than the arithmetic
    figure *= inside
    ground += figure
    figure[:] = rng.normal(0, 10, figure.shape)  # noise
    ground += figure
    return np.clip(ground, 0, 255, out=ground).astype(np.uint8)


# Signed distances of points (u, v), each float32 [n, 32, 32], in units of the figure's radius; v points down.


def _box(u: np.ndarray, v: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    turn, radius = np.arctan2(u, -v), np.hypot(u, v)
    sector = np.abs((turn + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    return (radius * (np.cos(sector) + 1.15 * np.sin(sector)) - 1.0) * 0.6


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 0.9


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _box(u, v, 0.78, 0.78)


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u) * 0.87 - v * 0.5, v) - 0.5


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u, v, 0.95, 0.27), _box(u, v, 0.27, 0.95))


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - 0.72) - 0.2


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(u, v) - 0.95, 0.75 - np.hypot(u - 0.5, v))


def _bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _box(u, v, 1.0, 0.22)


def _chevron(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(v + 0.4 - np.abs(u)) - 0.33, np.abs(u) - 0.95)


def _frame(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(_box(u, v, 0.68, 0.68)) - 0.19


_FIGURES = {
    "circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross, "ring": _ring, "star": _star,
    "crescent": _crescent, "bar": _bar, "chevron": _chevron, "frame": _frame}
