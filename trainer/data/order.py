"""Which examples a step uses: a pure function of (seed, epoch, step). No TensorFlow, no state.

Each example draws a 64-bit number from (seed, epoch, id) by splitmix64's finalizer (Steele, Lea &
Flood 2014, "Fast splittable pseudorandom number generators"), and an epoch's order is the ids sorted
by what they drew. Unlike `numpy.random.Generator`, whose streams may change with NumPy's version,
this order is the same on every machine, now and later: a run can be resumed anywhere.
"""

import functools

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x):
    """splitmix64's finalizer on uint64 arrays: every bit of the input changes half of the output's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(seed, epochs, ids):
    """What examples draw in epochs.

    Args:
        seed: The run's seed, an int from 0 to 2**31 - 1.
        epochs: Whole numbers, an array or an int.
        ids: Example ids, an array of the same shape or an int.

    Returns:
        uint64 of the broadcast shape.
    """
    with np.errstate(over="ignore"):  # unsigned arithmetic modulo 2**64 is what is meant
        key = _mix((np.asarray(seed, np.uint64) + np.uint64(1)) * _GOLDEN)
        key = _mix(key + (np.asarray(epochs, np.uint64) + np.uint64(1)) * _GOLDEN)
        return _mix(key + (np.asarray(ids, np.uint64) + np.uint64(1)) * _GOLDEN)


@functools.lru_cache(maxsize=4)
def permutation(seed, epoch, examples):
    """The order of an epoch: int64 [examples], each id once. Shared and read-only."""
    order = np.argsort(draw(seed, epoch, np.arange(examples)), kind="stable")
    order.setflags(write=False)
    return order


def stream(seed, examples, first, last):
    """A stretch of the endless stream of examples: epoch 0 in its order, epoch 1 in its own, …

    Args:
        seed: The run's seed.
        examples: Size of the split.
        first, last: Places in the stream, `last` exclusive.

    Returns:
        (ids int64 [last - first], seeds uint32 [last - first]): which example stands at each place,
        and the number that its augmentation in this epoch follows from.
    """
    places = np.arange(first, last)
    epochs = places // examples
    parts = [permutation(seed, int(epoch), examples)[max(first - epoch * examples, 0):last - epoch * examples]
             for epoch in range(first // examples, -(-last // examples))]
    ids = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    # Another seed than the order's, so that place and augmentation have nothing to do with each other.
    seeds = draw(seed + 2**31, epochs, ids) >> np.uint64(32)
    return ids, seeds.astype(np.uint32)


def batches(seed, examples, batch_size, replicas, replica, first_step, last_step):
    """A replica's rows of the global batches of some steps.

    A replica takes consecutive rows of the global batch, so the batches are the same on any number of
    replicas.

    Args:
        seed: The run's seed.
        examples: Size of the split.
        batch_size: Rows of the global batch.
        replicas: How many share it.
        replica: Which of them this is, from 0.
        first_step, last_step: Steps, `last_step` exclusive.

    Returns:
        (ids, seeds) as `stream`, each [last_step - first_step, batch_size // replicas].
    """
    pair = stream(seed, examples, first_step * batch_size, last_step * batch_size)
    return tuple(part.reshape(last_step - first_step, replicas, -1)[:, replica] for part in pair)
