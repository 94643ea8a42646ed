"""Lockstep's device loop takes 1.01 times a hand-written one on the GPU path (0.89 – 1.17, n = 9 pairs), 1.12 on CPUs.

Measured: a model of next to no arithmetic at batch 8, 71 µs a step beside 70 on the GPU path, which was run on a
logical CPU, and 147 beside 126 on the CPU path (0.88 – 1.31). Machine: two cores of an AMD EPYC, idle, no GPU.

    python benchmarks/device_loop.py [--rounds=9] [--seconds=1]

The last lines are those of benchmarks/RESULTS.md. Both loops train `benchmarks.models:tiny` on the drawn images in one
process, in turn. The hand-written one is what a user of TensorFlow would write for speed: a while loop on the device
around forward, backward and the optimizer's update, which returns the sums of the losses and of the correct
predictions. Ours also checks that everything is finite, counts, and keeps a record of each step. On the GPU path XLA
is on, images are resident, ids come as a tensor; the hand-written step is one XLA program there, too.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests/support")]
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import gpu_like  # noqa: E402

from trainer.config import Config  # noqa: E402
from trainer.data.pipeline import open_feed  # noqa: E402
from trainer.data.sources import shapes  # noqa: E402
from trainer.device_kind import CPU  # noqa: E402
from trainer.distributed import runtime  # noqa: E402
from trainer.distributed.cluster import Cluster  # noqa: E402
from trainer.distributed.devices import choice  # noqa: E402
from trainer.plan import Job, make_plan  # noqa: E402
from trainer.process.tf_import import tf  # noqa: E402
from trainer.train.state import TrainState  # noqa: E402
from trainer.train.step.train_loop import TrainLoop  # noqa: E402


def hand_written(job, state, feed):
    """Makes a loop as a user would write it.

    Args:
        job: Whose batch size is used.
        state: Whose model and optimizer are trained.
        feed: Where batches come from.

    Returns:
        A function of a number of steps to the sums of their losses and of their correct predictions.
    """
    model, optimizer, resident = state.model, state.optimizer, feed.resident[0]

    @tf.function(jit_compile=job.runtime.xla, autograph=False)
    def step(images, labels, ids):
        if resident is not None:
            images, labels = (tf.gather(whole, ids) for whole in resident)
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images, tf.float32), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        hits = tf.equal(tf.argmax(logits, 1, tf.int32), tf.cast(labels, tf.int32))
        return tf.stack([loss, tf.math.count_nonzero(hits, dtype=tf.float32)])

    @tf.function(autograph=False, reduce_retracing=True)
    def loop(steps, positions):
        def one(index, total):
            if positions is None:
                batch = next(feed.iterators[0])
                return index + 1, total + step(batch.images, batch.labels, batch.ids)
            return index + 1, total + step(None, None, positions[index, 0])

        return tf.while_loop(lambda index, _: index < steps, one, (tf.constant(0), tf.zeros([2])))[1]

    def run(steps):
        return loop(tf.constant(steps), feed.positions.take(steps)[0] if feed.positions else None)

    return run


def loops(kind, xla):
    """Makes both loops.

    Args:
        kind: How the device is used.
        xla: Whether XLA is on.

    Returns:
        (ours, the hand-written one), each with a model of its own.
    """
    config = Config(dataset="shapes", model="benchmarks.models:tiny", batch_size=8, num_gpus=0, epochs=1e6,
                    xla="on" if xla else "off")
    chosen = dataclasses.replace(choice.choose(config), kind=kind, xla=xla)
    started = runtime.start(config, Cluster(), chosen)
    data = shapes.render_dataset(0, 2000, 100)
    job = Job(config, make_plan(config, data.train.size, 1), started, data)
    ours, other = TrainState(job), TrainState(job)
    return (TrainLoop(job, ours, open_feed(job, first_step=0)),
            hand_written(job, other, open_feed(job, first_step=0)))


def microseconds(function, seconds):
    """Microseconds per step of a stretch of about so many seconds, after two that find its length."""
    def stretch(count):
        began = time.perf_counter()
        for tensor in tf.nest.flatten(function(count)):
            if tensor is not None:
                tensor.numpy()
        return (time.perf_counter() - began) / count

    stretch(100)
    return 1e6 * stretch(max(100, int(seconds / stretch(1000))))


def main():
    """Prints the table of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="number of pairs")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of each stretch")
    options = parser.parse_args()
    print("| path | ours, µs a step | hand-written | ratio |\n|---|---|---|---|")
    for title, kind, xla in (("CPU", CPU, False), ("as a GPU", gpu_like.KIND, True)):
        ours, other = loops(kind, xla)
        pairs = [(microseconds(ours, options.seconds), microseconds(other, options.seconds))
                 for _ in range(options.rounds)]
        ratios = [mine / theirs for mine, theirs in pairs]
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {title} | {mine:.0f} | {theirs:.0f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} – "
              f"{max(ratios):.2f}) |", flush=True)


if __name__ == "__main__":
    main()
