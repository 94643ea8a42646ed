"""Settings as Python code gives them: values of other types than a command line's, and functions of a notebook's."""

from __future__ import annotations

import dataclasses
import numbers
import operator
import os
import types
import typing
from typing import Any

from trainer.config import Config
from trainer.errors import UsageError

_WANTED = {int: "a whole number", float: "a number", bool: "True or False", str: "a str",
           tuple: "a tuple of str"}
_OF_FUNCTIONS = ("dataset", "model")


def checked(config: Config) -> Config:
    """The settings as a command line would have given them.

    Args:
        config: As the caller made it: numbers may be NumPy's, whole ones stand for floats, paths may be `Path`s, and
            lists stand for tuples.

    Returns:
        The same settings, of the types that their fields have.

    Raises:
        UsageError: with everything that is wrong.
    """
    if not isinstance(config, Config):
        raise UsageError(f"train takes a Config; received {type(config).__name__}", "train(Config(model=…, …))")
    hints, values, problems = typing.get_type_hints(Config), {}, []
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        try:
            values[field.name] = _typed(value, hints[field.name])
        except (TypeError, ValueError):
            problems.append(f"--{field.name} must be {_wanted(hints[field.name])}; received {value!r}")
            values[field.name] = field.default
    result = Config(**values)
    problems += result.problems() + _out_of_place(result)
    if problems:
        raise UsageError(problems, "correct the above; help(Config) and lockstep train --help list every setting")
    return result


def _typed(value: Any, hint: Any) -> Any:
    """A value as a type, if it means the same."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = next(typing.get_origin(kind) or kind for kind in kinds if kind is not type(None))
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise TypeError
    if isinstance(value, bool):
        raise TypeError
    if kind is int:
        return operator.index(typing.cast("Any", value))
    if kind is float and isinstance(value, numbers.Real):
        return float(value)
    if kind is str and isinstance(value, (str, os.PathLike)):
        return str(os.fspath(value))
    if kind is tuple and isinstance(value, (tuple, list)) and all(isinstance(member, str) for member in value):
        return tuple(value)
    raise TypeError


def _wanted(hint: Any) -> str:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    words = [_WANTED[typing.get_origin(kind) or kind] for kind in kinds if kind is not type(None)]
    return " or ".join([*words, *(["None"] if type(None) in kinds else [])])


def _out_of_place(config: Config) -> list[str]:
    """The problems of settings that a call can't have, a line each."""
    problems = [f"--{name}={value} names the script or the notebook itself, which the processes that try and measure "
                "exports can't import; write the function into a file, such as mine.py, and name it mine:"
                + value.partition(":")[2]
                for name in _OF_FUNCTIONS if (value := getattr(config, name)).startswith("__main__:")]
    if config.dry_run:
        problems.append("--dry_run is of the command: lockstep train --dry_run")
    return problems
