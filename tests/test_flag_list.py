"""The flags of every command, with type and default, are a contract: a change shows here, and is meant."""

import dataclasses
import importlib
import typing

from conftest import ROOT

from trainer import __main__ as commands
from trainer.config import Config

FROZEN = ROOT / "tests/fixtures/flags.txt"


def lines_of(command, options):
    types = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = types[field.name]
        yield f"{command} --{field.name} {getattr(kind, '__name__', kind) if isinstance(kind, type) else kind} " \
              f"{field.default!r}"


def listed():
    lines = list(lines_of("train", Config))
    for name in sorted(set(commands.COMMANDS) - {"train"}):
        lines += lines_of(name, importlib.import_module(f"trainer.commands.{name}").Options)
    return lines


def test_the_flags_are_those_that_users_know():
    """A new flag is added to flags.txt in the same commit, with its line in README or docs/."""
    assert listed() == FROZEN.read_text().splitlines()
