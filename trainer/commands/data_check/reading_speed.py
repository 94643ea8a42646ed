"""How fast training would read a data set's images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trainer.process.exit import say

if TYPE_CHECKING:
    from trainer.data.split import Split

READ_SECONDS = 1.5
_READ_BATCH = 64


def say_reading_speed(split: Split) -> None:
    """Prints how fast training would read images of a split; says nothing of one that lies in memory."""
    from trainer.data import order
    from trainer.data.images.encoded_split import EncodedSplit
    from trainer.data.pipeline import with_threads
    from trainer.process.host import cores
    from trainer.process.tf_import import tf

    if not isinstance(split, EncodedSplit):
        return
    batch_size = min(_READ_BATCH, split.size)
    steps = min(100, split.size // batch_size)
    positions = order.batches(split.order(0, batch_size), batch_size, 1, 0, 0, steps)
    read = split.read(tf.data.Dataset.from_tensor_slices(positions).repeat(), cores())
    batches = iter(with_threads(read, cores()).prefetch(2))
    next(batches)  # opens the pipeline
    began, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < READ_SECONDS:
        next(batches)
        count += 1
    rate = count * batch_size / seconds
    say(f"training reads about {rate:,.0f} images/s with {cores()} cores, {rate / cores():,.0f} a core: devices that "
        "train more wait for images (python -m trainer bench measures both)")
