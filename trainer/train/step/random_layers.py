"""What random layers draw in a step by themselves: it follows from (seed, layer, step, replica).

Since version 3 of the draws this is only what isn't drawn for an example; see example_draws.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.train.state import TrainState

_CALLS = 2**10  # most calls of a random layer in a step
_COUNTS = 2**31 // _CALLS  # number of counts until the key changes


def seed_random_layers(state: TrainState, seed: int, replica_id: int, replicas: int) -> None:
    """Sets the states of random layers to what follows from (seed, layer, step, replica).

    Keras would give every replica the same masks, and the same masks again after a resume, since its checkpoints don't
    hold these states. A state is (key, count), and each call of a layer uses a count that is one higher than that of
    the call before: so counts of different steps and replicas are 1,024 apart.
    """
    count = state.step * replicas + replica_id
    turn = tf.constant(0, tf.int64)
    if state.bit_versions["draws"] > 1:
        turn, count = count // _COUNTS, count % _COUNTS * _CALLS  # pyright: ignore[reportOperatorIssue]  not in the stub
    for layer, variable in enumerate(state.random_states):
        key = (seed * 0x9E3779B9 + layer * 0x85EBCA6B + 1) % 2**31
        variable.value.assign(tf.cast(tf.stack([(key + turn * 0xC2B2AE3D) % 2**31, count]), variable.dtype))
