"""A max pool's gradient and RandAugment's histograms, by TensorFlow's scatter and by comparing, without and with XLA.

    python benchmarks/scatters.py

Claim (two cores, n = 9, medians): by comparing, a max pool takes twice as long without XLA and an eighth with it;
histograms take over ten times as long. So CPUs keep the scatters. On a GPU it was not measured.
"""

import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

import numpy as np  # noqa: E402

from trainer.process.tf_import import tf  # noqa: E402

_CALLS = 9


def milliseconds(function, tensor, xla):
    """The median, least and most time of a compiled function's calls."""
    compiled = tf.function(function, jit_compile=xla)
    compiled(tensor)
    times = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        compiled(tensor).numpy()
        times.append(1e3 * (time.perf_counter() - began))
    return f"{statistics.median(times):.2f} ({min(times):.2f} – {max(times):.2f})"


def gradient_through(pool):
    """The function that gives the gradient of a pool's squares."""
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(pool(images) ** 2)
        return tape.gradient(total, images)

    return gradient


def main():
    """Prints the table of RESULTS.md."""
    from trainer.data.augment.images.randaugment import histograms
    from trainer.models.pooling import max_pool

    rng = np.random.default_rng(0)
    pools = (gradient_through(lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID")),
             gradient_through(lambda x: max_pool(x, (2, 2), (2, 2), "valid")))
    counts = tuple(lambda values, by=by: histograms(values, by) for by in (False, True))
    cases = [("max pool 2 × 2 and its gradient, [128, 30, 30, 32]", pools,
              tf.constant(rng.normal(size=(128, 30, 30, 32)), tf.float32))]
    cases += [(f"histograms of {n} images of {side} pixels", counts,
               tf.constant(rng.integers(0, 256, (n, side, side, 3)), tf.int32)) for n, side in ((128, 32), (16, 224))]
    for name, functions, tensor in cases:
        cells = [milliseconds(function, tensor, xla) for function in functions for xla in (False, True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
