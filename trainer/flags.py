"""Command lines to checked values: absl flags made from the fields of a dataclass.

All that is wrong with a command line is collected and raised at once. Nothing below this module
sees flags.
"""

import dataclasses
import difflib
import shutil
import sys
import textwrap
import types
import typing

from absl import flags

from trainer.errors import UsageError


@dataclasses.dataclass(frozen=True)
class _Wrong:
    """Stands for a value that could not be read, until all of them are known."""

    text: str
    wanted: str


class _Parser(flags.ArgumentParser):
    """Reads one type, and never raises."""

    def __init__(self, kind):
        self.kind = kind
        self.syntactic_help = ""

    def parse(self, argument):
        if not isinstance(argument, str):
            return argument
        if self.kind is str:
            return argument
        if self.kind is tuple:
            return tuple(part.strip() for part in argument.split(",") if part.strip())
        if self.kind is bool:
            answers = {"true": True, "1": True, "false": False, "0": False}
            return answers.get(argument.lower(), _Wrong(argument, "true or false"))
        try:
            return self.kind(argument)
        except ValueError:
            return _Wrong(argument, {int: "a whole number", float: "a number"}[self.kind])

    def flag_type(self):
        return self.kind.__name__


def parse(options, argv, positional=None):
    """Reads a command line into a value.

    Args:
        options: A dataclass with `config.Checked` and `config.option` fields; each becomes a flag.
        argv: The words after the program's name. `--flagfile=FILE` may stand among them, and
            `--help` prints all flags and ends the program.
        positional: The name of the field that takes the words that aren't flags, if one does.

    Returns:
        An instance of `options`, free of problems.

    Raises:
        UsageError: with everything that is wrong.
    """
    if "--help" in argv or "-h" in argv or "--helpfull" in argv:
        print(_help(options, positional))
        sys.exit(0)
    values, kinds = flags.FlagValues(), typing.get_type_hints(options)
    fields = [field for field in dataclasses.fields(options) if field.name != positional]
    for field in fields:
        _define(values, field, _kind(kinds[field.name]))
    values.set_gnu_getopt(True)
    try:
        rest = values(["lockstep", *argv], known_only=True)[1:]
    except (flags.Error, ValueError) as error:
        raise UsageError(str(error)) from None
    problems = [_unknown(word, fields) for word in rest if word.startswith("-")]
    words = tuple(word for word in rest if not word.startswith("-"))
    if words and positional is None:
        problems += [f"unexpected argument {word!r}; flags are written --name=value" for word in words]
    given = {field.name: values[field.name].value for field in fields}
    if positional is not None:
        given[positional] = words
    for name, value in given.items():
        if isinstance(value, _Wrong):
            problems.append(f"--{name} must be {value.wanted}; received {value.text!r}")
    readable = {name: value for name, value in given.items() if not isinstance(value, _Wrong)}
    result = options(**readable)
    problems += result.problems()
    if problems:
        raise UsageError(problems)
    return result


def _kind(hint):
    """str, int, float, bool or tuple, of an annotation such as `int | None` or `tuple[str, ...]`."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return typing.get_origin(hint) or hint


def _define(values, field, kind):
    if kind is bool:
        flag = flags.BooleanFlag(field.name, field.default, field.metadata["help"])
        flag.parser = _Parser(bool)
        flags.DEFINE_flag(flag, values)
    else:
        flags.DEFINE(_Parser(kind), field.name, field.default, field.metadata["help"], values)


def _unknown(word, fields):
    name = word.lstrip("-").split("=")[0]
    near = difflib.get_close_matches(name, [field.name for field in fields], 1)
    hint = f"; did you mean --{near[0]}?" if near else ""
    return f"there is no flag --{name}{hint}"


def _help(options, positional):
    width = min(110, shutil.get_terminal_size().columns)
    lines = [(options.__doc__ or "").strip(), ""]
    for field in dataclasses.fields(options):
        default, choices = field.default, field.metadata["choices"]
        if field.metadata["pattern"]:
            choices = (*choices, field.metadata["pattern"][1])
        shown = ",".join(default) if isinstance(default, tuple) else default
        title = field.name.upper() if field.name == positional else f"--{field.name}"
        lines.append(title + (f"={'|'.join(choices)}" if choices else "")
                     + (f"   (default: {shown})" if shown not in ("", None) else ""))
        lines += textwrap.wrap(field.metadata["help"], width, initial_indent="    ", subsequent_indent="    ")
    lines += ["--flagfile=FILE", "    more flags, one a line; later ones win"]
    return "\n".join(lines)
