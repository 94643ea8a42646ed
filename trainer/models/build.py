"""Builds a model by its name."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Callable

import keras
import numpy as np

from trainer.config import MODELS
from trainer.errors import UsageError
from trainer.models import applications
from trainer.process.user_code import called_by_flag, function_of

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
_LARGEST_TRIED = 65  # pixels: networks for photographs take small images, too


def build(name: str, classes: int, image_shape: tuple[int, int, int], precision: str = "float32",
          drop_path: float = 0.0) -> keras.Model:
    """Builds a model with fresh weights.

    The same name, classes and shape give the same variables in the same order at every precision, so weights can be
    copied from a model of one precision to a model of another.

    Args:
        name: As in `--model`.
        classes: Number of logits.
        image_shape: (height, width, channels).
        precision: The precision of the layers' computation: float32, bfloat16 or float16. Variables and logits are
            float32.
        drop_path: As in `--drop_path`.

    Returns:
        A functional `keras.Model`: float32 [n, height, width, channels] of 0 to 255 → float32 [n, classes].

    Raises:
        UsageError: if the network takes no such images, keras.applications has no such network, the named function
            cannot be imported, raises an error or doesn't return such a model, or there are no residual blocks to drop.
    """
    if drop_path and ":" in name:
        raise _nothing_to_drop(name)
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        if name.startswith("keras:"):
            return applications.build(name.removeprefix("keras:"), classes, image_shape)
        return _of_function(name, classes, image_shape) if ":" in name else _of_zoo(name, classes, image_shape,
                                                                                   drop_path)
    finally:
        keras.config.set_dtype_policy(outer)


def weights_of_data(name: str) -> Callable[[np.ndarray], dict[str, np.ndarray]] | None:
    """What makes a network's first weights of training images, where some follow from them.

    Args:
        name: As in `--model`.

    Returns:
        A function of images, uint8 [n, height, width, channels], that returns a dict of a variable's path to its value;
        None for a network whose first weights are all random.
    """
    return None if ":" in name else getattr(importlib.import_module(f"trainer.models.zoo.{name}"), "weights_of_data",
                                            None)


def frozen_paths(name: str) -> tuple[str, ...]:
    """The paths of a network's variables that never train, in zoo/; `name` as in `--model`."""
    return () if ":" in name else getattr(importlib.import_module(f"trainer.models.zoo.{name}"), "FROZEN", ())


def _of_zoo(name: str, classes: int, image_shape: tuple[int, int, int], drop_path: float) -> keras.Model:
    """A network of zoo/, for images that it can take.

    Raises:
        UsageError: if it can't take them, with the sizes that it takes and the networks that take them.
    """
    try:
        return _network(name, classes, image_shape, drop_path)
    except ValueError as error:
        others = [other for other in MODELS if other != name and _takes(other, image_shape)]
        smallest = next((side for side in range(1, _LARGEST_TRIED) if _takes(name, (side, side, image_shape[2]))), None)
        if smallest is None:
            raise  # not for the size of the images
        raise UsageError(f"--model={name} does not take images of {_sizes(image_shape)}: its smallest are {smallest} × "
                         f"{smallest}",
                         f"--image_size={smallest} or more, which --dataset=folder, csv, records and tfds:NAME take"
                         + (f", or one of the models that take them: {', '.join(others)}" if others else "")) from error


def _network(name: str, classes: int, image_shape: tuple[int, int, int], drop_path: float = 0.0) -> keras.Model:
    """A network of zoo/, with the layer that scales pixels and the layer of the logits."""
    network = importlib.import_module(f"trainer.models.zoo.{name}")
    if drop_path and not _drops_paths(network):
        raise _nothing_to_drop(name)
    more = {"drop_path": drop_path} if drop_path else {}
    pixels = keras.Input(image_shape, dtype="float32", name="pixels")
    features = network.features(keras.layers.Rescaling(1 / 255, name="scale")(pixels), **more)
    settings = getattr(network, "logits_settings", dict)()
    logits = keras.layers.Dense(classes, dtype="float32", name="logits", **settings)(features)
    return keras.Model(pixels, logits, name=name)


def _takes(name: str, image_shape: tuple[int, int, int]) -> bool:
    """Whether a network of zoo/ can be built for images of a shape."""
    try:
        _network(name, 2, image_shape)
    except ValueError:
        return False
    return True


def _sizes(image_shape: tuple[int, int, int]) -> str:
    return " × ".join(map(str, image_shape))


def _drops_paths(network: types.ModuleType) -> bool:
    return "drop_path" in inspect.signature(network.features).parameters


def _nothing_to_drop(name: str) -> UsageError:
    able = [other for other in MODELS if _drops_paths(importlib.import_module(f"trainer.models.zoo.{other}"))]
    return UsageError(f"--drop_path drops residual blocks of {', '.join(able)}; received --model={name}",
                      "leave --drop_path out, or choose one of these models")


def _of_function(name: str, classes: int, image_shape: tuple[int, int, int]) -> keras.Model:
    """The model that a user's function returns."""
    with called_by_flag("model", name):
        model = function_of("model", name, ("classes", "image_shape"))(classes, image_shape)
    if not isinstance(model, keras.Model) or not hasattr(model, "input_shape"):
        raise UsageError(f"--model={name} must return a functional keras.Model; it returned {type(model).__name__}",
                         "build it with keras.Input and keras.Model, so that it can be exported and loaded again")
    shapes = model.input_shape, model.output_shape
    if shapes != ((None, *image_shape), (None, classes)) or model.outputs[0].dtype != "float32":
        raise UsageError(
            f"--model={name} must map {(None, *image_shape)} to {(None, classes)} in float32; its model maps "
            f"{shapes[0]} to {shapes[1]} in {model.outputs[0].dtype}",
            'use the arguments (classes, image_shape), and dtype="float32" in the last layer')
    return model
