"""Renders a page from its template. Jinja2 is imported when the first page is: it takes a tenth of a second."""

from __future__ import annotations

import datetime
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

_FOLDER = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """The text of a page: one file with its style and its images, and no script.

    Args:
        template: The name of a file beside this one.
        **values: What the template names. All text is escaped but `Markup`.
    """
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": percent, "interval": interval, "duration": duration, "moment": moment,
                            "count": count}
    return environment


def percent(share: float | None, digits: int = 2) -> str:
    """A share as a percentage; a dash for what has no meaning."""
    return "–" if share is None else f"{share:.{digits}%}"


def interval(bounds: list[float], digits: int = 1) -> str:
    """The bounds of an interval, as percentages."""
    return f"{100 * bounds[0]:.{digits}f} – {bounds[1]:.{digits}%}"


def count(number: float | None) -> str:
    """A whole number, with separators."""
    return "–" if number is None else f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """Such as 4.2 s, 3 min 05 s or 2 h 10 min."""
    if seconds is None:
        return "not measured"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(clock: float) -> str:
    """Seconds since 1970 as a date and a time, in UTC."""
    try:
        return datetime.datetime.fromtimestamp(clock, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "–"
