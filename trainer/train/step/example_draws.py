"""What a model's random layers draw for an example: it follows from the example's seed, whoever trains on it.

An example's seed follows from (run seed, epoch, id) and travels with the batch. So dropout's masks are the same on any
number of replicas, in any number of passes, after any resume, and inside XLA as outside: numbers are integer hashes, as
those of augmentation are, and not of TensorFlow's random ops.

Keras's layers, and those of users, draw by four functions of Keras's TensorFlow backend, which all take the layer's
`SeedGenerator`. In the forward pass of a step these functions draw by example where a row of the result is an
example's. Whatever else is drawn follows from (seed, layer, step, replica), as random_layers.py has it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras.src.backend.tensorflow import random as keras_random

from trainer.data.augment.random_ints import high_bits, mixed
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.train.state import TrainState

_FIRST_INDEX = 2**24  # augmentation's indices are below
_CALLS = 2**10  # most calls of a layer in a pass
_ELEMENTS = 2**23  # an index of its own

_BITS = {"float16": 11, "bfloat16": 8}  # more would be rounded up to 1

_Shape = Sequence[Any]


class _Draws:
    """The draws of one pass over a model, as it is traced.

    Args:
        seeds: uint32 [n], the examples'.
        states: The states of the model's random layers.
    """

    def __init__(self, seeds: tf.Tensor, states: Sequence[keras.Variable]) -> None:
        self._seeds, self._layers = seeds, {id(state): index for index, state in enumerate(states)}
        self._calls: dict[int, int] = {}

    def covers(self, shape: _Shape, seed: Any) -> bool:
        """Whether an array's rows are the examples', and a layer of the model draws it."""
        rows = self._seeds.shape[0]
        return (isinstance(seed, keras.random.SeedGenerator) and id(seed.state) in self._layers and len(shape) > 0
                and all(isinstance(side, int) for side in shape) and shape[0] == rows)

    def uniform(self, shape: _Shape, seed: keras.random.SeedGenerator) -> tf.Tensor:
        """Independent numbers: float32 of the shape, from 0 to below 1, multiples of 2**-24."""
        layer = self._layers[id(seed.state)]
        call = self._calls[layer] = self._calls.get(layer, -1) + 1
        rows = mixed(self._seeds, _FIRST_INDEX + layer * _CALLS + call)
        elements = mixed(tf.cast(tf.range(math.prod(shape[1:])), tf.uint32), _ELEMENTS)
        numbers = mixed(rows[:, None] + elements[None, :], 0)
        return tf.cast(tf.reshape(high_bits(numbers), shape), tf.float32) * 2.0**-24


_LOCAL = threading.local()  # a strategy traces each replica in a thread of its own


@contextlib.contextmanager
def drawn_by_example(state: TrainState, seeds: tf.Tensor) -> Iterator[None]:
    """For a block that calls the model on a batch: its layers draw by the examples' seeds, from version 3 on.

    Args:
        state: The run's; its version of the draws and the states of its random layers count.
        seeds: uint32 [n]; n is known.
    """
    _teach_keras()
    _LOCAL.draws = _Draws(seeds, state.random_states) if state.bit_versions["draws"] > 2 else None
    try:
        yield
    finally:
        _LOCAL.draws = None


@functools.cache
def _teach_keras() -> None:
    """Replaces Keras's functions, once; outside of `drawn_by_example` they do what they did."""
    for function in (_uniform, _normal, _randint, _dropout):
        name = function.__name__.removeprefix("_")
        setattr(keras_random, name, _replacement(getattr(keras_random, name), function))


def _replacement(original: Callable[..., Any], by_example: Callable[..., Any]) -> Callable[..., Any]:
    """Keras's function, but for what a model draws for examples inside `drawn_by_example`."""

    parameters = inspect.signature(original)

    @functools.wraps(original)
    def function(*args: Any, **named: Any) -> Any:
        draws = getattr(_LOCAL, "draws", None)
        if draws is not None:
            given = parameters.bind(*args, **named).arguments
            seed, noise_shape = given.pop("seed", None), given.pop("noise_shape", None)
            shape = _known(given.pop("shape")) if "shape" in given else _of_mask(given["inputs"], noise_shape)
            if draws.covers(shape, seed):
                return by_example(functools.partial(draws.uniform, shape, seed), **given)
        return original(*args, **named)

    return function


def _known(shape: Any) -> _Shape:
    """A shape as a sequence: of integers, as far as they are known while tracing."""
    if not tf.is_tensor(shape):
        return tuple(shape)
    known = tf.get_static_value(shape)
    return () if known is None else tuple(known.tolist())


def _of_mask(inputs: tf.Tensor, noise_shape: _Shape | None) -> _Shape:
    """The shape of a dropout's mask: where `noise_shape` has None, a side of the inputs."""
    sides = inputs.shape.as_list()
    return sides if noise_shape is None else [side if wanted is None else wanted
                                              for side, wanted in zip(sides, noise_shape, strict=True)]


def _uniform(draw: Callable[[], tf.Tensor], minval: float = 0.0, maxval: float = 1.0,
             dtype: Any = None) -> tf.Tensor:
    dtype = dtype or keras.config.floatx()
    steps = 2.0 ** _BITS.get(keras.backend.standardize_dtype(dtype), 24)
    return tf.cast(minval + tf.floor(draw() * steps) / steps * (maxval - minval), dtype)


def _normal(draw: Callable[[], tf.Tensor], mean: float = 0.0, stddev: float = 1.0,
            dtype: Any = None) -> tf.Tensor:
    """Box & Muller 1958, "A note on the generation of random normal deviates"."""
    radius = tf.sqrt(-2.0 * tf.math.log(draw() + 2.0**-24))
    return tf.cast(mean + stddev * radius * tf.cos(2.0 * math.pi * draw()), dtype or keras.config.floatx())


def _randint(draw: Callable[[], tf.Tensor], minval: int, maxval: int, dtype: Any = "int32") -> tf.Tensor:
    span = tf.cast(maxval - minval, tf.float32)
    return tf.cast(tf.cast(minval, tf.float32) + tf.floor(draw() * span), dtype)


def _dropout(draw: Callable[[], tf.Tensor], inputs: tf.Tensor, rate: float) -> tf.Tensor:
    if rate in (0.0, 1.0):
        return inputs if rate == 0.0 else tf.zeros_like(inputs)
    return tf.where(draw() >= rate, inputs * tf.cast(1.0 / (1.0 - rate), inputs.dtype), tf.zeros([], inputs.dtype))
