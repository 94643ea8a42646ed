"""What a run sets in its process, and a caller must find as it was."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer.process import gpu_environment, imports

_one_run = threading.Lock()
_OF_A_RUN = ("object_name_uids", "global_random_seed", "global_seed_generator", "dtype_policy")


@contextlib.contextmanager
def only_run() -> Iterator[bool]:
    """For a block that runs once at a time in a process.

    Yields:
        Whether this is the only one; else the block must not begin.
    """
    is_only = _one_run.acquire(blocking=False)
    try:
        yield is_only
    finally:
        if is_only:
            _one_run.release()


@contextlib.contextmanager
def left_as_found() -> Iterator[None]:
    """Around a run: gives back environment variables, the path of imports, random numbers and Keras's names of layers.

    Layers' automatic names and Keras's seeds belong to a thread. In the block they begin as in a new process, so that
    a second run's exports have the names of a first one's.
    """
    environment = {name: os.environ.get(name) for name in gpu_environment.names()}
    path, state, numbers = list(sys.path), random.getstate(), np.random.get_state()
    freezes, imports.may_freeze = imports.may_freeze, False
    with contextlib.ExitStack() as stack:
        stack.callback(_give_back, environment, path)
        stack.callback(random.setstate, state)
        stack.callback(np.random.set_state, numbers)
        stack.callback(setattr, imports, "may_freeze", freezes)
        stack.enter_context(_keras_anew())
        yield


def _give_back(environment: dict[str, str | None], path: list[str]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for entry in [entry for entry in sys.path if entry not in path]:
        sys.path.remove(entry)


@contextlib.contextmanager
def _keras_anew() -> Iterator[None]:
    """Keras's names, seeds and settings as in a new process, also if it is imported in the block.

    Those of the caller come back afterwards.
    """
    keras: Any = sys.modules.get("keras")
    before, settings = (_take(keras), _settings(keras)) if keras else ({}, None)
    try:
        if keras:
            imports.settle(keras)
        yield
    finally:
        if keras := sys.modules.get("keras"):
            _take(keras)
            for name, value in before.items():
                setattr(_of_thread(keras), name, value)
        if settings:
            floatx, epsilon, image_data_format = settings
            keras.config.set_floatx(floatx)
            keras.config.set_epsilon(epsilon)
            keras.config.set_image_data_format(image_data_format)


def _of_thread(keras: Any) -> Any:
    """What Keras keeps for this thread."""
    return keras.src.backend.common.global_state.GLOBAL_STATE_TRACKER


def _take(keras: Any) -> dict[str, Any]:
    """Takes names and seeds away from Keras, which then begins anew; returns them."""
    kept = vars(_of_thread(keras))
    return {name: kept.pop(name) for name in _OF_A_RUN if name in kept}


def _settings(keras: Any) -> tuple[str, float, str]:
    return keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()
