"""Ten classes of figures, drawn by the program: a data set that needs no download.

A figure has a random place, size, turn and colour on a background of another colour with a gradient
and noise. Colour and place say nothing about the class, so a linear model gets nowhere near a
convolutional one. Figures are signed distance functions: negative inside, so that an edge can be
drawn smoothly by how far a pixel is from it.
"""

import numpy as np

from trainer.data.dataset import in_memory

CLASSES = ("circle", "square", "triangle", "cross", "ring", "star", "crescent", "bar", "chevron", "frame")
TRAIN, TEST, SIDE = 12_000, 2_000, 32
_CHUNK = 500


def load(config):
    """Draws the data set of a seed.

    Args:
        config: The run's `Config`; only its seed matters.

    Returns:
        A `Dataset` of 12,000 and 2,000 images of 32×32.
    """
    return draw_dataset(config.seed)


def draw_dataset(seed, train=TRAIN, test=TEST):
    """As `load`, of any size; the first images of a split don't depend on its size."""
    return in_memory("shapes", CLASSES, draw(seed, 0, train), draw(seed, 1, test))


def draw(seed, split, count):
    """Draws images of all classes in turn.

    Args:
        seed: Anything that follows from it is the same for the same seed.
        split: 0 for train, 1 for test: their images have nothing to do with each other.
        count: How many.

    Returns:
        (images uint8 [count, 32, 32, 3], labels int32 [count]).
    """
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(count, dtype=np.int32) % len(CLASSES)
    for number, begin in enumerate(range(0, count, _CHUNK)):
        rng = np.random.default_rng((seed, split, number))
        part = slice(begin, min(begin + _CHUNK, count))
        images[part] = _images(rng, _CHUNK)[:part.stop - begin]
    return images, labels


def _images(rng, n):
    """uint8 [n, 32, 32, 3] of the classes in turn; `n` is a multiple of their number."""
    radius = rng.uniform(5.5, 10.5, (n, 1, 1)).astype(np.float32)
    centre = rng.uniform(-1, 1, (2, n, 1, 1)).astype(np.float32) * (SIDE / 2 - 0.85 * radius)
    angle = rng.uniform(-0.6, 0.6, (n, 1, 1)).astype(np.float32)
    axis = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    x, y = axis[None, None, :] - centre[0], axis[None, :, None] - centre[1]
    u, v = (np.cos(angle) * x + np.sin(angle) * y) / radius, (np.cos(angle) * y - np.sin(angle) * x) / radius
    distance = np.empty((n, SIDE, SIDE), np.float32)
    for label, name in enumerate(CLASSES):
        mine = slice(label, None, len(CLASSES))
        distance[mine] = _FIGURES[name](u[mine], v[mine])
    inside = np.clip(0.5 - distance * radius, 0, 1)[..., None]

    # Any colour on any darker one: a figure is always visible, and its class is in its outline alone.
    ground = rng.uniform(0, 130, (n, 1, 1, 3)).astype(np.float32)
    figure = ground + rng.uniform(50, 125, (n, 1, 1, 3)).astype(np.float32)
    slope = rng.uniform(-1, 1, (2, n, 1, 1, 3)).astype(np.float32)
    ground = ground + slope[0] * axis[None, None, :, None] + slope[1] * axis[None, :, None, None]
    noise = rng.normal(0, 10, (n, SIDE, SIDE, 3)).astype(np.float32)
    return np.clip(ground + (figure - ground) * inside + noise, 0, 255).astype(np.uint8)


def _box(u, v, half_width, half_height):
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _star(u, v):
    turn, radius = np.arctan2(u, -v), np.hypot(u, v)
    sector = np.abs((turn + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    return (radius * (np.cos(sector) + 1.15 * np.sin(sector)) - 1.0) * 0.6


_FIGURES = {
    "circle": lambda u, v: np.hypot(u, v) - 0.9,
    "square": lambda u, v: _box(u, v, 0.78, 0.78),
    "triangle": lambda u, v: np.maximum(np.abs(u) * 0.87 - v * 0.5, v) - 0.5,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.95, 0.27), _box(u, v, 0.27, 0.95)),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.72) - 0.2,
    "star": _star,
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 0.95, 0.75 - np.hypot(u - 0.5, v)),
    "bar": lambda u, v: _box(u, v, 1.0, 0.22),
    "chevron": lambda u, v: np.maximum(np.abs(v + 0.4 - np.abs(u)) - 0.33, np.abs(u) - 0.95),
    "frame": lambda u, v: np.abs(_box(u, v, 0.68, 0.68)) - 0.19,
}
