"""Random numbers of examples: integer arithmetic on the seed that follows from (run seed, epoch, example id).

Not TensorFlow's random ops, which give other values under XLA than outside.
"""

from trainer.process.tf_import import tf

_GOLDEN = 0x9E3779B9


def random_ints(seeds: tf.Tensor, index: int, below: int) -> tf.Tensor:
    """Independent whole numbers, one for each example.

    Args:
        seeds: uint32 [n].
        index: Which of an example's random numbers is wanted; those of different indices are independent.
        below: The numbers are from 0 to below - 1, all but equally likely for `below` much under 2**24.

    Returns:
        int32 [n].
    """
    return tf.math.floormod(high_bits(mixed(seeds, index)), below)


def random_bytes(seeds: tf.Tensor, index: int, count: int) -> tf.Tensor:
    """Independent whole numbers from 0 to 255, many for each example.

    Args:
        seeds: uint32 [n].
        index: As in `random_ints`.
        count: How many.

    Returns:
        int32 [n, count].
    """
    seeds = mixed(seeds, index)  # mixed twice: neighbours of this index and of another would be the same
    places = tf.cast(tf.range(count), tf.uint32) * tf.constant(_GOLDEN, tf.uint32)
    return tf.cast(tf.bitwise.right_shift(_mix(seeds[:, None] + places), tf.constant(24, tf.uint32)), tf.int32)


def mixed(numbers: tf.Tensor, index: int) -> tf.Tensor:
    """Whole numbers whose bits all follow from all bits of others.

    Args:
        numbers: uint32 of any shape.
        index: Numbers of different indices are independent.

    Returns:
        uint32 of the same shape.
    """
    return _mix(numbers + tf.constant((index * _GOLDEN + 0x85EBCA6B) % 2**32, tf.uint32))


def _mix(x: tf.Tensor) -> tf.Tensor:
    """Wellons's "lowbias32", the best of its form found by his search for integer hashes (2018), on uint32."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x *= tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))


def high_bits(numbers: tf.Tensor) -> tf.Tensor:
    """The upper 24 bits of uint32 numbers: int32."""
    return tf.cast(tf.bitwise.right_shift(numbers, tf.constant(8, tf.uint32)), tf.int32)


def uniform(seeds: tf.Tensor, index: int) -> tf.Tensor:
    """Independent numbers, one for each example: float32 [n] from 0 to below 1, multiples of 2**-24.

    Args:
        seeds: uint32 [n].
        index: As in `random_ints`.
    """
    return tf.cast(random_ints(seeds, index, 2**24), tf.float32) / 2**24
