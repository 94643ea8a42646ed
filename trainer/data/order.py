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


def augmentation_seeds(seed, epochs, ids):
    """What the augmentation of examples in epochs follows from: uint32, arguments as in `draw`."""
    # Another seed than the order's, so that place and augmentation have nothing to do with each other.
    return (draw(seed + 2**31, epochs, ids) >> np.uint64(32)).astype(np.uint32)


class Shuffle:
    """The endless stream of a split's examples: epoch 0 in its order, epoch 1 in its own, …

    Args:
        seed: The run's seed.
        examples: Size of the split.
    """

    def __init__(self, seed, examples):
        self._seed, self._examples = seed, examples

    def stream(self, first, last):
        """A stretch of the stream.

        Args:
            first, last: Places in it, `last` exclusive.

        Returns:
            (ids int64 [last - first], seeds uint32 [last - first]): which example stands at each place,
            and the number that its augmentation in this epoch follows from.
        """
        size = self._examples
        parts = [permutation(self._seed, int(epoch), size)[max(first - epoch * size, 0):last - epoch * size]
                 for epoch in range(first // size, -(-last // size))]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return ids, augmentation_seeds(self._seed, np.arange(first, last) // size, ids)


@functools.lru_cache(maxsize=4)
def permutation(seed, epoch, examples):
    """The order of an epoch: int64 [examples], each id once. Shared and read-only."""
    order = np.argsort(draw(seed, epoch, np.arange(examples)), kind="stable")
    order.setflags(write=False)
    return order


def batches(order, batch_size, replicas, replica, first_step, last_step):
    """A replica's rows of the global batches of some steps.

    A replica takes consecutive rows of the global batch, so the batches are the same on any number of
    replicas.

    Args:
        order: What has a `stream`, as `Shuffle` has.
        batch_size: Rows of the global batch.
        replicas: How many share it.
        replica: Which of them this is, from 0.
        first_step, last_step: Steps, `last_step` exclusive.

    Returns:
        (ids, seeds) as `stream`, each [last_step - first_step, batch_size // replicas].
    """
    return rows_of(global_batches(order, batch_size, first_step, last_step), replicas, replica)


def global_batches(order, batch_size, first_step, last_step):
    """The global batches of some steps; arguments as in `batches`.

    Returns:
        (ids, seeds) as `stream`, each [last_step - first_step, batch_size].
    """
    pair = order.stream(first_step * batch_size, last_step * batch_size)
    return tuple(part.reshape(-1, batch_size) for part in pair)


def rows_of(pair, replicas, replica):
    """A replica's rows of (ids, seeds), each [steps, batch_size]: consecutive ones, [steps, batch_size // replicas]."""
    return tuple(part.reshape(len(part), replicas, -1)[:, replica] for part in pair)
