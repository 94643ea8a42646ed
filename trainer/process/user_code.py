"""The user's own functions, named on the command line."""

import contextlib
import importlib
import importlib.machinery
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer.config import FUNCTION
from trainer.errors import UsageError, translate

_PACKAGE = Path(__file__).parents[1]


def function_of(flag: str, name: str, arguments: tuple[str, ...], *,
                may_take_nothing: bool = False) -> Callable[..., Any]:
    """Imports the function that a flag names.

    Args:
        flag: The flag's name.
        name: package.module:function.
        arguments: The names of what it is called with.
        may_take_nothing: Whether a function that needs nothing, such as `keras.datasets.mnist:load_data`, is called
            without arguments.

    Returns:
        The function, to be called with the arguments.

    Raises:
        UsageError: if it cannot be imported, its module raises an error, or it can't be called so.
    """
    module, function = name.split(":")
    with called_by_flag(flag, name), folder_first():
        try:
            found = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"--{flag}={name} can't be imported: {error}",
                             "name a function of a module that lies in this folder or is installed; what that module "
                             "imports must be installed, too") from None
    try:
        if may_take_nothing and _needs_nothing(found, arguments):
            return _without_arguments(found)
        inspect.signature(found).bind(*arguments)
    except TypeError as error:
        called = f"{function}({', '.join(arguments)})"
        raise UsageError(f"--{flag}={name} can't be called as {called}: {error}",
                         f"define it so: def {called}") from None
    except ValueError:
        pass  # compiled code that doesn't say what it takes
    return found


@contextlib.contextmanager
def called_by_flag(flag: str, name: str) -> Iterator[None]:
    """For a block that calls a function that a flag names.

    Args:
        flag: The flag's name.
        name: package.module:function.

    Raises:
        UsageError: in place of any error of the function's own, with the lines of its code that led there.
    """
    try:
        yield
    except Exception as error:
        if translate(error):
            raise
        lines = "".join(traceback.format_exception(error)).splitlines()
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        message = (str(error).strip() or "no message").splitlines()[0][:300]
        failure = UsageError(f"--{flag}={name} failed with {type(error).__name__}: {message}{where}",
                             "correct the function; the lines above led there")
        failure.details = "\n".join(["where it was raised:", *lines[1:]])  # the first is Python's own heading
        raise failure from None


def call_for_tensor(flag: str, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], like: Any,
                    what: str) -> Any:
    """Calls a function that a flag names inside a traced function; it must return a tensor of a known type and shape.

    Args:
        flag, name: As in `called_by_flag`.
        function: The function.
        arguments: What it gets.
        like: What has the type and the shape: a tensor, or a `tf.TensorSpec`.
        what: What is wanted, as a user reads it.

    Raises:
        UsageError: as `called_by_flag` does, also for what it returned.
    """
    from trainer.process.tf_import import tf

    with called_by_flag(flag, name):
        returned = tf.convert_to_tensor(function(*arguments))
        if returned.dtype != like.dtype or returned.shape != like.shape:
            raise TypeError(f"it returned {returned.dtype.name} {returned.shape.as_list()}; {what}, {like.dtype.name} "
                            f"{like.shape.as_list()}")
        return returned


def _is_library(path: str) -> bool:
    """Whether a file is this package's, Python's or an installed package's."""
    folders = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return path.startswith(("<", str(_PACKAGE), *folders))


def _needs_nothing(function: Callable[..., Any], arguments: tuple[str, ...]) -> bool:
    """Whether a function takes nothing, or has values of its own, which aren't None, for what it takes."""
    parameters = list(inspect.signature(function).parameters.values())
    return not parameters or (parameters[0].name not in arguments and parameters[0].default is not None
                              and all(parameter.default is not parameter.empty for parameter in parameters))


def _without_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes anything and calls another with nothing."""
    def call(*_: Any) -> Any:
        return function()

    return call


def origin_of(name: str) -> str | None:
    """Where the code of a function lies that a setting names; nothing is imported.

    Args:
        name: A setting's value; that of a function is package.module:function.

    Returns:
        "module (file)", or None if the value names no function of a user's.
    """
    if not re.fullmatch(FUNCTION[0], name):
        return None
    module = name.split(":")[0]
    with folder_first():
        top = importlib.machinery.PathFinder.find_spec(module.split(".")[0])
    return f"{module} ({top.origin or list(top.submodule_search_locations or ['?'])[0]})" if top else module


@contextlib.contextmanager
def folder_first() -> Iterator[None]:
    """In the block, modules of the current folder come first, as with `python -m`; afterwards last.

    What this program imports later, a keras.py or html.py of the folder must not replace.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it is gone meanwhile, and what it held is imported
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
