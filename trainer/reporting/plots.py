"""The plots of a run, each renamed into place when it is complete: its curves, and its first examples."""

from __future__ import annotations

import contextlib
import operator
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.process.exit import printable
from trainer.reporting import jsonl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trainer.data.augment.preview import Samples

# Figures are made without pyplot: its import takes as long as both plots, and it keeps every figure until it is closed.
_TRAIN, _EVALUATED = "#7a8ca3", "#d1495b"
_CELL, _IMAGE, _TITLE = 1.6, 1.25, 0.3  # inches: of an example with its name, the longer side of its image, the title


def plot_curves(metrics_file: Path | str, path: Path | str, evaluated: str) -> None:
    """Draws curves.png.

    Args:
        metrics_file: The run's metrics.jsonl.
        path: The PNG to write.
        evaluated: The name of the evaluated split.
    """
    lines = [line for line in jsonl.read(metrics_file) if _is_whole(line)]
    train = [line for line in lines if line["split"] == "train"]
    evaluations = [line for line in lines if line["split"] == "eval"]
    with _figures() as figures:
        _save(_curves(figures, train, evaluations, evaluated), path)


def _curves(figures: type[Figure], train: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]],
            evaluated: str) -> Figure:
    """The figure of curves.png."""
    figure = figures(figsize=(10.5, 4))
    # Fixed margins: to compute them would draw the figure twice more.
    axes = figure.subplots(1, 2, gridspec_kw={"left": 0.08, "right": 0.985, "bottom": 0.13, "top": 0.92, "wspace": 0.2})
    for axis, name, factor, label in ((axes[0], "loss", 1, "loss (nats)"), (axes[1], "accuracy", 100, "accuracy (%)")):
        axis.plot([line["epoch"] for line in train], [factor * line[name] for line in train],
                  color=_TRAIN, linewidth=1, alpha=0.45)
        averages = [line for line in evaluations if line.get(f"train_{name}") is not None]
        axis.plot([line["epoch"] for line in averages], [factor * line[f"train_{name}"] for line in averages],
                  color=_TRAIN, linewidth=2, marker="o", markersize=4, label="train, mean between evaluations")
        axis.plot([line["epoch"] for line in evaluations], [factor * line[name] for line in evaluations],
                  color=_EVALUATED, linewidth=2, marker="o", markersize=4, label=evaluated)
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    if evaluations:
        best = max(evaluations, key=operator.itemgetter("accuracy"))
        axes[1].set_title(f"best {evaluated} accuracy {best['accuracy']:.2%}, epoch {best['epoch']:.3g}", fontsize=10)
        axes[0].set_title(f"last {evaluated} loss {evaluations[-1]['loss']:.4f}", fontsize=10)
    return figure


def plot_range_test(rates: Sequence[float], losses: Sequence[float], means: Sequence[float], suggestion: float | None,
                    path: Path | str) -> None:
    """Draws what `lr_find` found: the loss over the learning rate.

    Args:
        rates: The learning rate of each step.
        losses: The loss of each step, in nats.
        means: The smoothed losses of the first steps.
        suggestion: The learning rate to mark, or None.
        path: The PNG to write.
    """
    with _figures() as figures:
        figure = figures(figsize=(7, 4))
        axis = figure.subplots(gridspec_kw={"left": 0.1, "right": 0.98, "bottom": 0.14, "top": 0.97})
        axis.semilogx(rates, losses, color=_TRAIN, linewidth=1, alpha=0.45, label="each step")
        axis.semilogx(rates[:len(means)], means, color=_TRAIN, linewidth=2, label="smoothed")
        if suggestion is not None:
            axis.axvline(suggestion, color=_EVALUATED, linewidth=1.5, label=f"suggestion: {suggestion:g}")
        if means:  # what grows without end would leave nothing to see of the rest
            low, high = min(means), means[0]
            axis.set_ylim(low - 0.2 * (high - low + 0.1), high + 0.8 * (high - low + 0.1))
        axis.set_xlabel("learning rate")
        axis.set_ylabel("loss (nats)")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
        _save(figure, path)


def plot_samples(samples: Samples, path: Path | str) -> None:
    """Draws samples.png: a row before augmentation, a row after it.

    Args:
        samples: The run's first examples.
        path: The PNG to write.
    """
    with _figures() as figures:
        _save(_samples(figures, samples), path)


def _samples(figures: type[Figure], samples: Samples) -> Figure:
    """The figure of samples.png."""
    count = len(samples.names)
    figure = figures(figsize=(_CELL * count, 2 * _CELL + _TITLE))
    axes = figure.add_axes((0, 0, 1, 1))  # one for all, in inches: an axes for each image takes five times as long
    axes.set_axis_off()
    for row, images, names in ((1, samples.before, samples.names), (0, samples.after, samples.names_after)):
        for column, (image, name) in enumerate(zip(images, names, strict=True)):
            middle, bottom = _CELL * (column + 0.5), _CELL * row + 0.05
            height, width = (_IMAGE * side / max(image.shape[:2]) for side in image.shape[:2])
            axes.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None, interpolation="nearest",
                        vmin=0, vmax=255, extent=(middle - width / 2, middle + width / 2, bottom, bottom + height))
            axes.text(middle, bottom + height + 0.04, printable(name).replace(", ", "\n"), fontsize=7, ha="center",
                      va="bottom", parse_math=False)
    axes.set(xlim=(0, _CELL * count), ylim=(0, 2 * _CELL + _TITLE))
    figure.suptitle("above: as they are; below: as training sees them in the first epoch", fontsize=9)
    return figure


@contextlib.contextmanager
def _figures() -> Iterator[type[Figure]]:
    """Matplotlib's class of figures, with nothing of what the user's own file of settings says."""
    with _settings_folder():
        import matplotlib
        from matplotlib.figure import Figure
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield Figure


@contextlib.contextmanager
def _settings_folder() -> Iterator[None]:
    """Around Matplotlib's import: where the home can't be written, its list of fonts is made for this process alone."""
    folder = os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    while not os.path.exists(folder) and os.path.dirname(folder):
        folder = os.path.dirname(folder)
    if "MPLCONFIGDIR" in os.environ or os.access(folder, os.W_OK) or "matplotlib" in sys.modules:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="lockstep-") as os.environ["MPLCONFIGDIR"]:
        try:
            yield
        finally:
            del os.environ["MPLCONFIGDIR"]


def _is_whole(line: dict[str, Any]) -> bool:
    """Whether a line has the numbers that are drawn; a train line has none where no loss was finite."""
    return all(isinstance(line.get(name), float | int) for name in ("epoch", "loss", "accuracy"))


def _save(figure: Figure, path: Path | str) -> None:
    """Writes a figure as a PNG."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.new")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a class may have a name in any script
        figure.savefig(staged, dpi=120, format="png")
    os.replace(staged, path)
