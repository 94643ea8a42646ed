"""Command lines to checked values: absl flags made from the fields of a dataclass.

All that is wrong with a command line is collected and raised at once; absl alone would stop at the first. Nothing
below this module sees flags.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import flags

from trainer.errors import UsageError
from trainer.options import Checked, url_problem

_CONFIGS = Path(__file__).parent / "configs"
_SHOWN = 8  # unexpected arguments, such as the names that a shell makes of a pattern
_Options = TypeVar("_Options", bound=Checked)


@dataclasses.dataclass(frozen=True)
class _Wrong:
    """Stands for a value that could not be read, until all such values are known.

    Args:
        text: What was received.
        wanted: What the flag takes, as a user reads it.
    """

    text: str
    wanted: str


class _Parser(flags.ArgumentParser):
    """Reads values of one type, and never raises.

    Args:
        kind: str, int, float, bool or tuple.
    """

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.syntactic_help = ""

    def parse(self, argument: Any) -> Any:
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

    def flag_type(self) -> str:
        return self.kind.__name__


def parse(options: type[_Options], argv: Sequence[str], positional: str | None = None) -> _Options:
    """Reads a command line into a value.

    Args:
        options: A `Checked` dataclass whose fields are made by `option`; each becomes a flag.
        argv: The arguments after the program's name. `--flagfile=FILE` may be one of them, and
            `--config=NAME` is one of this package's own; `--help` prints all flags and ends the program. What stands
            after `--` isn't a flag.
        positional: The name of the field that takes the arguments that aren't flags, if one does.

    Returns:
        An instance of `options`, free of problems.

    Raises:
        UsageError: with everything that is wrong.
        SystemExit: after `--help`.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    argv, not_flags = _with_configs(argv[:end]), argv[end + 1:]
    if "--help" in argv or "-h" in argv or "--helpfull" in argv:
        print(_help(options, positional))
        sys.exit(0)
    values, kinds = flags.FlagValues(), typing.get_type_hints(options)
    fields = [field for field in dataclasses.fields(options) if field.name != positional]
    for field in fields:
        _define(values, field, _kind(kinds[field.name]))
    values.set_gnu_getopt(True)
    if urls := [problem for name in _flagfiles(argv) if (problem := url_problem("flagfile", name))]:
        raise UsageError(urls)
    try:
        rest = values(["lockstep", *argv], known_only=True)[1:]
    except (flags.Error, ValueError) as error:
        raise UsageError(str(error).removeprefix("ERROR:: ")) from None
    unknown = [argument for argument in rest if argument.startswith("-") and argument != "-"]
    problems = [_unknown(argument, fields, positional) for argument in unknown]
    arguments = (*(argument for argument in rest if argument not in unknown), *not_flags)
    if arguments and positional is None:
        problems += [f"unexpected argument {argument!r}; flags are written --name=value"
                     for argument in arguments[:_SHOWN]]
        problems += [f"and {len(arguments) - _SHOWN:,} more arguments"] if len(arguments) > _SHOWN else []
    given = {field.name: values[field.name].value for field in fields}
    if positional is not None:
        given[positional] = arguments
    for name, value in given.items():
        if isinstance(value, _Wrong):
            problems.append(f"--{name} must be {value.wanted}; received {value.text!r}")
    readable = {name: value for name, value in given.items() if not isinstance(value, _Wrong)}
    result = options(**readable)
    title = f"{positional}".upper()  # an argument that isn't a flag has no name of a flag
    problems += [re.sub(rf"^--{positional}\b", title, problem) for problem in result.problems()]
    if problems:
        raise UsageError(problems)
    return result


def config_names() -> list[str]:
    """The names of the files of flags that come with this package."""
    return sorted(path.stem for path in _CONFIGS.glob("*.cfg"))


def _with_configs(argv: Sequence[str]) -> list[str]:
    """A command line whose --config=NAME is --flagfile=FILE.

    Raises:
        UsageError: if there is no such file.
    """
    words, result = iter(argv), []
    for word in words:
        name, has_value, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name != "config":
            result.append(word)
            continue
        value = value if has_value else next(words, "")
        if value not in config_names():
            raise UsageError(f"--config must be {', '.join(config_names())}; received {value!r}",
                             "choose one of these; a file of your own is given with --flagfile=FILE")
        result.append(f"--flagfile={_CONFIGS / value}.cfg")
    return result


def _flagfiles(argv: Sequence[str]) -> list[str]:
    """The values of --flagfile, written in one word or in two."""
    return [value or (*argv[index + 1:index + 2], "")[0] for index, word in enumerate(argv)
            for name, _, value in [word.lstrip("-").partition("=")] if word.startswith("-") and name == "flagfile"]


def kind_of(options: type[Checked], name: str) -> type:
    """The type of a flag's values: str, int, float, bool or tuple."""
    return _kind(typing.get_type_hints(options)[name])


def _kind(hint: Any) -> type:
    """str, int, float, bool or tuple, of an annotation such as `int | None` or `tuple[str, ...]`."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return typing.get_origin(hint) or hint


def _define(values: flags.FlagValues, field: dataclasses.Field[Any], kind: type) -> None:
    default: Any = field.default
    if kind is bool:
        flag = flags.BooleanFlag(field.name, default, field.metadata["help"])
        flag.parser = _Parser(bool)
        flags.DEFINE_flag(flag, values)
    else:
        flags.DEFINE(_Parser(kind), field.name, default, field.metadata["help"], values)


def _unknown(argument: str, fields: Sequence[dataclasses.Field[Any]], positional: str | None) -> str:
    """The sentence for a flag that does not exist, with the nearest name that does."""
    name = argument.lstrip("-").split("=")[0]
    matches = difflib.get_close_matches(name, [field.name for field in fields], 1)
    hint = f"; did you mean --{matches[0]}?" if matches else ""
    dashes = f"; {positional} whose names begin with - stand after --" if positional and not hint else ""
    return f"there is no flag --{name}{hint}{dashes}"


def _help(options: type[Checked], positional: str | None) -> str:
    """What `--help` prints."""
    width = min(110, shutil.get_terminal_size().columns)
    lines = [(options.__doc__ or "").strip(), ""]
    for field in dataclasses.fields(options):
        default, choices = field.default, field.metadata["choices"]
        if field.metadata["pattern"]:
            choices = (*choices, field.metadata["pattern"][1])
        default_text = ",".join(default) if isinstance(default, tuple) else default
        title = field.name.upper() if field.name == positional else f"--{field.name}"
        lines.append(title + (f"={'|'.join(choices)}" if choices else "")
                     + (f"   (default: {default_text})" if default_text not in ("", None) else ""))
        lines += textwrap.wrap(field.metadata["help"], width, initial_indent="    ", subsequent_indent="    ")
    lines += ["--flagfile=FILE", "    more flags, one a line; later ones win",
              f"--config={'|'.join(config_names())}", "    such a file of this package's"]
    return "\n".join(lines)
