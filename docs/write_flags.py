"""Writes docs/flags.md, the reference of all flags, from the code: python docs/write_flags.py."""

import dataclasses
import importlib
import math
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from trainer.__main__ import COMMANDS  # noqa: E402
from trainer.config import Config  # noqa: E402

OPENING = """# Flags

Made from the code by `python docs/write_flags.py`; `lockstep COMMAND --help` says the same. `python -m trainer.main` is
`lockstep train`. **Another run**: a run that
goes on with another value would be another run, so that is refused.
"""


def page():
    """The text of flags.md."""
    parts = [OPENING, *section(Config, "train")]
    known = {field.name: field for field in dataclasses.fields(Config)}
    for command in sorted(set(COMMANDS) - {"train"}):
        options = importlib.import_module(f"trainer.commands.{command}").Options
        own = [field for field in dataclasses.fields(options)
               if field.name not in known or field.metadata["help"] != known[field.name].metadata["help"]]
        shared = [f"`--{field.name}`" for field in dataclasses.fields(options) if field not in own]
        if len(shared) > len(known) / 2:
            shared = ["all flags of `train`"]
        parts += section(options, command, own)
        parts += [f"As in `train`: {', '.join(shared)}.\n"] if shared else []
    return "\n".join(parts)


def section(options, command, fields=None):
    """The heading of a command and the table of its flags."""
    rows = [row(field) for field in (dataclasses.fields(options) if fields is None else fields)]
    table = ["| flag | default | |", "|---|---|---|", *rows, ""] if rows else []
    return [f"## lockstep {command}\n", *table]


def row(field):
    """A line of the table."""
    rule = field.metadata
    choices = [f"`{choice}`" for choice in rule["choices"] if choice]
    values = f" One of {', '.join(choices)}." if choices else ""
    if rule["pattern"]:
        values += f" Or {cell(rule['pattern'][1])}."
    bounds = [f"{word} {value:g}" for word, value in (
        ("at least", rule["least"]), ("above", rule["above"]), ("at most", rule["most"])) if math.isfinite(value)]
    values += f" {', '.join(bounds).capitalize()}." if bounds else ""
    another = " **Another run.**" if rule["another_run"] else ""
    help_text = cell(rule["help"])
    return f"| `--{field.name}` | {shown(field.default)} | {help_text[0].upper()}{help_text[1:]}.{values}{another} |"


def shown(value):
    """A default as a reader writes it."""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text and value is not None else ""


def cell(text):
    """Text that no table's or HTML's marks are in."""
    return text.rstrip(".").replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    (ROOT / "docs/flags.md").write_text(page(), encoding="utf-8")
