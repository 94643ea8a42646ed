"""A max pool and its gradient take twice as long without TensorFlow's scatter; with XLA, a tenth of its time.

Measured: 6.73 ms (6.14 – 11.08) by comparing, beside 3.33 ms (2.69 – 4.02) by the scatter; with XLA 2.31 ms (2.25 –
2.90) beside 22.94 ms (21.46 – 29.15). RandAugment's histograms take 17 to 36 times as long by comparing. So CPUs keep
the scatters. Each figure is the median of n = 9 calls, with the least and the most. Machine: two cores of an AMD EPYC,
idle. It was not measured on a GPU.

    python benchmarks/scatters.py

The last lines are the table of benchmarks/RESULTS.md.
"""

import argparse
import functools
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

import numpy as np  # noqa: E402

from trainer.process.tf_import import tf  # noqa: E402

_CALLS = 9


def milliseconds(function, tensor, xla):
    """Times the calls of a compiled function.

    Args:
        function: A function of a tensor to a tensor.
        tensor: Its argument.
        xla: Whether XLA compiles it.

    Returns:
        "median (least – most)" in milliseconds.
    """
    compiled = tf.function(function, jit_compile=xla)
    compiled(tensor)
    times = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        compiled(tensor).numpy()
        times.append(1e3 * (time.perf_counter() - began))
    return f"{statistics.median(times):.2f} ({min(times):.2f} – {max(times):.2f})"


def gradient_through(pool):
    """Differentiates the sum of a pool's squares.

    Args:
        pool: A function of images to pooled images.

    Returns:
        A function of images to the gradient.
    """
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(pool(images) ** 2)
        return tape.gradient(total, images)

    return gradient


def main():
    """Prints the table of RESULTS.md."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    from trainer.data.augment.operations import histograms
    from trainer.models.pooling import max_pool

    rng = np.random.default_rng(0)
    pools = (gradient_through(functools.partial(tf.nn.max_pool2d, ksize=2, strides=2, padding="VALID")),
             gradient_through(functools.partial(max_pool, size=(2, 2), strides=(2, 2), padding="valid")))
    counts = tuple(functools.partial(histograms, by_comparison=by_comparison) for by_comparison in (False, True))
    cases = [("max pool 2 × 2 and its gradient, [128, 30, 30, 32]", pools,
              tf.constant(rng.normal(size=(128, 30, 30, 32)), tf.float32))]
    cases += [(f"histograms of {n} images of {side} pixels", counts,
               tf.constant(rng.integers(0, 256, (n, side, side, 3)), tf.int32)) for n, side in ((128, 32), (16, 224))]
    print("| | TensorFlow's own | XLA's | by comparing | by comparing, XLA |")
    print("|---|---|---|---|---|")
    for name, functions, tensor in cases:
        cells = [milliseconds(function, tensor, xla) for function in functions for xla in (False, True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
