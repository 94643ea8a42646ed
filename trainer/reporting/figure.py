"""Pictures of a run, put in place whole."""

import os
from pathlib import Path


def save(figure, picture):
    """Writes a figure of matplotlib's as a PNG, and closes it.

    Args:
        figure: The figure.
        picture: Where to.
    """
    from matplotlib import pyplot

    picture = Path(picture)
    picture.parent.mkdir(parents=True, exist_ok=True)
    staged = picture.with_name(f".{picture.name}.new")
    figure.savefig(staged, dpi=120, format="png")
    pyplot.close(figure)
    os.replace(staged, picture)
