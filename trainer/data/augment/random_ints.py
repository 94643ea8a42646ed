"""Random numbers of examples: integer arithmetic on the seed that follows from (run seed, epoch, example id).

Not TensorFlow's random ops, which give other values under XLA than outside.
"""

from trainer.process.tf_import import tf


def random_ints(seeds: tf.Tensor, index: int, below: int) -> tf.Tensor:
    """Independent whole numbers, one for each example.

    Args:
        seeds: uint32 [n].
        index: Which of an example's random numbers is wanted; those of different indices are independent.
        below: The numbers are from 0 to below - 1, all but equally likely for `below` much under 2**24.

    Returns:
        int32 [n].
    """
    x = seeds + tf.constant((index * 0x9E3779B9 + 0x85EBCA6B) % 2**32, tf.uint32)
    # "lowbias32", the best of its form found by C. Wellons's search for integer hashes (2018).
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x *= tf.constant(factor, tf.uint32)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))
    high = tf.cast(tf.bitwise.right_shift(x, tf.constant(8, tf.uint32)), tf.int32)
    return high % below


def uniform(seeds: tf.Tensor, index: int) -> tf.Tensor:
    """Independent numbers, one for each example: float32 [n] from 0 to below 1, multiples of 2**-24.

    Args:
        seeds: uint32 [n].
        index: As in `random_ints`.
    """
    return tf.cast(random_ints(seeds, index, 2**24), tf.float32) / 2**24
