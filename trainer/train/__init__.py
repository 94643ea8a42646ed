"""One step, many steps, and what is known about them. `from trainer import train` is this folder, and can be called.

    result = train(Config(model="resnet20"), stop=None)

trainer.library.call.train is what the call does, with its arguments, its result and its errors.
"""

import functools
import importlib
import random
import sys
import types
from collections.abc import Callable
from typing import Any


class _Callable(types.ModuleType):
    """A module that can be called.

    `import trainer.train.state` makes this module the attribute `train` of `trainer`, whatever was there before: a
    function of that name would be there or not, by what was imported before.
    """

    @property
    def __wrapped__(self) -> Callable[..., Any]:  # for signatures
        state = random.getstate()
        try:
            # By name: this folder is below the library, and imports nothing of it.
            return importlib.import_module("trainer.library.call").train
        finally:
            random.setstate(state)  # rich draws one when it is imported

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.__wrapped__(*arguments, **named)

    def __reduce__(self) -> Any:  # for pools of processes
        return functools.partial(importlib.import_module, self.__name__), ()


sys.modules[__name__].__class__ = _Callable
