"""Charts as SVG, whose colours are the page's: they follow the reader's light or dark mode, and stay sharp."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 270, 54, 24, 12, 40
_MOST_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: What the legend says.
        points: (x, y) of each point; those that aren't finite are left out.
        color: The number of its colour, from 1 to 6.
        faint: Whether it stays in the background, without points and legend.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: int = 1
    faint: bool = False


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, percentages: bool = False) -> Markup:
    """Lines over two axes.

    Args:
        lines: The lines.
        x_label, y_label: What the axes say.
        percentages: Whether the y values are shares, shown as percentages.
    """
    from markupsafe import Markup, escape

    drawn = [dataclasses.replace(line, points=[point for point in line.points if all(map(math.isfinite, point))])
             for line in lines]
    every = [point for line in drawn for point in line.points]
    if not every:
        return Markup("<p class=quiet>nothing to draw</p>")
    x_ticks, y_ticks = (ticks([point[axis] for point in every]) for axis in (0, 1))
    left, right, low, high = x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1]

    def x_of(value: float) -> float:
        return round(_LEFT + (value - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y_of(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    parts = [f'<svg class=chart viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img aria-label="{escape(y_label)}">']
    for tick in y_ticks:
        text = f"{100 * tick:g} %" if percentages else f"{tick:g}"
        parts.append(f'<path class=grid d="M{_LEFT} {y_of(tick)}H{_WIDTH - _RIGHT}"/>'
                     f'<text x={_LEFT - 6} y={y_of(tick) + 4} text-anchor=end>{text}</text>')
    parts += [f'<text x={x_of(tick)} y={_HEIGHT - _BOTTOM + 18} text-anchor=middle>{tick:g}</text>' for tick in x_ticks]
    parts.append(f'<text x={(_LEFT + _WIDTH) // 2} y={_HEIGHT - 4} text-anchor=middle>{escape(x_label)}</text>')
    for line in drawn:
        points = [(x_of(x), y_of(y)) for x, y in _thinned(line.points)]
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        parts.append(f'<path class="line c{line.color}{" faint" if line.faint else ""}" d="{path}"/>' if points else "")
        if not line.faint and len(points) <= 40:
            parts += [f'<circle class="dot c{line.color}" cx={x} cy={y} r=3 />' for x, y in points]
    legend = "".join(f'<span><i class="c{line.color}"></i>{escape(line.name)}</span>' for line in drawn
                     if not line.faint and line.points)
    return Markup(f'<figure><figcaption>{escape(y_label)}</figcaption>{"".join(parts)}</svg>'
                  f'<div class=legend>{legend}</div></figure>')


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """The reliability diagram: a bar for the accuracy in each bin of confidence, beside what it should be."""
    from markupsafe import Markup

    side, left, low = 200, 48, 220
    parts = ['<svg class=chart viewBox="0 0 268 256" role=img aria-label="reliability diagram">']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class=grid d="M{left} {low - side * tick:g}h{side}"/>'
                     f'<text x={left - 6} y={low - side * tick + 4:g} text-anchor=end>{100 * tick:g} %</text>'
                     f'<text x={left + side * tick:g} y={low + 16} text-anchor=middle>{100 * tick:g}</text>')
    for each in bins:
        x, width, height = left + side * each["from"], side * (each["to"] - each["from"]), side * each["accuracy"]
        parts.append(f'<rect class=bar x={x + 0.5:.1f} y={low - height:.1f} width={width - 1:.1f} height={height:.1f}>'
                     f'<title>{each["examples"]:,} examples, confidence {each["confidence"]:.1%}, accuracy '
                     f'{each["accuracy"]:.1%}</title></rect>')
    parts.append(f'<path class="line c2" stroke-dasharray="4 4" d="M{left} {low}L{left + side} {low - side}"/>'
                 f'<text x={left + side / 2:g} y={low + 34} text-anchor=middle>confidence (%)</text></svg>')
    return Markup(f'<figure><figcaption>accuracy at each confidence</figcaption>{"".join(parts)}</figure>')


def ticks(values: Sequence[float], wanted: int = 5) -> list[float]:
    """Round numbers, at equal distances, around values.

    Args:
        values: At least one; all finite.
        wanted: About how many.

    Returns:
        At least two numbers, ascending; no value is outside them.
    """
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    magnitude = 10.0 ** math.floor(math.log10((high - low) / wanted))
    step = next(factor * magnitude for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * magnitude) <= wanted)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    every = max(1, len(points) // _MOST_POINTS)
    return [*points[::every], points[-1]] if every > 1 else points
