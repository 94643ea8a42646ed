"""Tables in Markdown, for TensorBoard's texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.process.exit import in_a_line

_MOST_CLASSES = 100
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_COLUMNS = ("class", "examples", "recall", "95 % interval", "precision", "F1")


def class_table(quality: Mapping[str, Any]) -> str:
    """The figures of each class, the worst first, up to 100 classes.

    Args:
        quality: As `figures_of` returns it.

    Returns:
        A table in Markdown, and below it what is confused most often.
    """
    by_class = sorted(quality["by_class"].items(), key=lambda item: (item[1]["recall"] is None, item[1]["recall"]))
    rows = [(name, f"{each['examples']:,}", _percent(each["recall"]),
             " – ".join(map(_percent, each["recall_interval"])) if each["examples"] else "–",
             _percent(each["precision"]), "–" if each["f1"] is None else f"{each['f1']:.3f}")
            for name, each in by_class[:_MOST_CLASSES]]
    more = len(by_class) - len(rows)
    parts = [table(_COLUMNS, rows)] + ([f"and {more:,} more classes, which are better"] if more else [])
    if quality["most_confused"]:
        parts.append(table(("class", "said to be", "examples"), [
            (each["class"], each["answer"], f"{each['examples']:,}") for each in quality["most_confused"]]))
    return "\n\n".join(parts)


def settings_table(settings: Mapping[str, Any]) -> str:
    """A run's settings.

    Args:
        settings: Name to value, as `Config` has them.

    Returns:
        A table in Markdown; what isn't given is a dash.
    """
    return table(("setting", "value"), [
        (name, "–" if value in (None, "", ()) else ",".join(map(str, value)) if isinstance(value, (list, tuple)) else
         str(value)) for name, value in settings.items()])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head: The columns' names.
        rows: As many texts each; any names.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """A text that ends no cell, and is no markup."""
    return "".join(_ENTITIES.get(letter) or (f"\\{letter}" if letter in r"\|*_`[]#" else letter)
                   for letter in in_a_line(text))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
