"""Images in files, of any number: read, decoded and cut out when they are needed.

    step's ids → where each lies, which part of it is seen      one call of Python a step, all rows at once
               → decode → crop → resize                         by TensorFlow, an element at a time, in parallel
               → batch

An image that can't be read or decoded doesn't end its pipeline. Its step is done over with more care, each
image by itself: `BadExamples` hears of those that fail, and where it bears them their rows are black and
weigh nothing. All other rows stay what they would be.
"""

import abc
import dataclasses
import itertools

import numpy as np

from trainer.data.images import crops, pillow_reader, tf_decoder
from trainer.data.split import Batch, Split
from trainer.process import cpu
from trainer.process.tf_import import tf


@dataclasses.dataclass(frozen=True)
class HeaderTable:
    """What the headers of n images say; see `images.ImageHeader`.

    Args:
        kinds, widths, heights, orientations: int [n].
        problems: id to what is wrong with an image, in a few words.
    """

    kinds: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    orientations: np.ndarray
    problems: dict[int, str]

    @classmethod
    def join(cls, looks):
        """Those of a list of `images.ImageHeader`."""
        columns = np.array([look[:4] for look in looks], np.int32).reshape(-1, 4).T
        return cls(columns[0].astype(np.uint8), columns[1], columns[2], columns[3].astype(np.uint8),
                   {number: look.problem for number, look in enumerate(looks) if look.problem})


class EncodedSplit(Split):
    """See the module.

    Args:
        labels: int32 [n].
        looks: The `HeaderTable` of the images.
        size: Of the side of the model's images.
        augment: `--augment`; flip and the random crop of large images are done here if they come first.
        bad: The data set's `BadExamples`.
    """

    decodes = True

    def __init__(self, labels, looks, size, augment, bad):
        super().__init__(labels)
        self._looks, self._size, self._bad = looks, size, bad
        self.done = _done_while_reading(augment, size)
        self._refused = np.zeros(len(labels), bool)
        for example, problem in looks.problems.items():
            self._refused[example] = True
            bad.note(self, example, problem)
        # Read in place of what can't be: a step with a row that is known to be bad is no step to be done over.
        self._stand_in = int(self._refused.argmin())
        shorter = np.minimum(looks.heights, looks.widths)[~self._refused]
        # Where only few images are large enough to be halved, that saves less than choosing costs.
        self._halves = len(shorter) > 0 and np.median(shorter) >= 2 * size
        ways = {pillow_reader.JPEG: range(4) if self._halves else [0], pillow_reader.PNG: [tf_decoder.PNG],
                pillow_reader.OTHER: [tf_decoder.OTHER]}
        kinds = np.unique(looks.kinds[~self._refused]).tolist() or [pillow_reader.OTHER]
        self._ways = [way for kind in kinds for way in ways[kind]]
        self._turned = bool((looks.orientations != 1).any())

    @abc.abstractmethod
    def fetch(self, ids):
        """Where examples lie, or what lies there, for `encoded`: an array of bytes objects [n]."""

    @abc.abstractmethod
    def encoded(self, fetched):
        """The encoded image of one element of `fetch`, a scalar string tensor."""

    @abc.abstractmethod
    def load(self, example):
        """The encoded image.

        Returns:
            bytes.

        Raises:
            OSError: if it can't be read.
            ValueError: if what was read isn't what was written.
        """

    def read(self, positions, threads, training=True):
        """See `Split.read`."""
        rows = positions.element_spec[0].shape[0]

        def batch(*columns):
            each = tf.data.Dataset.from_tensor_slices(columns)
            fast = each.map(self._decode_row, num_parallel_calls=threads, deterministic=True).batch(rows, True)
            careful = each.interleave(self._decode_with_care, cycle_length=threads, num_parallel_calls=threads,
                                      deterministic=True).batch(rows, True)
            return fast.ignore_errors(log_warning=False).concatenate(careful).take(1)

        # Two steps at once, so that no thread waits where one ends and the next begins.
        looked_up = positions.map(lambda ids, seeds: self._look_up(ids, seeds, training)).prefetch(1)
        return looked_up.interleave(batch, cycle_length=2, num_parallel_calls=2, deterministic=True)

    def chunks(self, rows):
        """See `Split.chunks`."""
        ids = tf.data.Dataset.range(self.size)
        positions = ids.batch(1).map(lambda ids: (ids, tf.zeros([1], tf.uint32)))
        positions = positions.map(lambda *pair: tuple(tf.ensure_shape(part, [1]) for part in pair))
        data = self.read(positions, cpu.cores(), training=False).unbatch().batch(rows).prefetch(1)
        for batch in data.as_numpy_iterator():
            self._bad.check()
            readable = batch.mask > 0
            yield batch.images[readable], batch.labels[readable]

    def problem_of(self, example):
        """What is wrong with an example, in a few words, or None: looks at all of it."""
        if example in self._looks.problems:
            return self._looks.problems[example]
        try:
            return pillow_reader.validate(self.load(example))
        except OSError as error:
            return f"it can't be read: {error.strerror or error}"
        except ValueError as error:
            return str(error)

    def _look_up(self, ids, seeds, training):
        """Everything that `_decode_row` needs, for all rows of a step."""
        def look_up(ids, seeds):
            labels, usable = self.labels[ids], ~self._refused[ids]
            ids = np.where(usable, ids, self._stand_in)
            kinds, widths, heights, orientations = (
                column[ids].astype(np.int32) for column in
                (self._looks.kinds, self._looks.widths, self._looks.heights, self._looks.orientations))
            boxes = (crops.random_boxes(heights, widths, seeds) if training and "crop" in self.done else
                     crops.central_boxes(heights, widths, self._size))
            stored = crops.stored_boxes(boxes, heights, widths, orientations)
            halvings = crops.reductions(stored, self._size) * self._halves
            jpeg = kinds == pillow_reader.JPEG
            boxes = np.where(jpeg[:, None], np.maximum(stored >> halvings[:, None], [0, 0, 1, 1]), boxes)
            ways = tf_decoder.ways_of(kinds, halvings)
            mirrored = crops.mirrored(seeds) * (training and "flip" in self.done)
            fetched = self.fetch(ids)
            if self._refused.all():
                fetched[:] = b""  # nothing that could be decoded
            return (labels, usable.astype(np.int32), ways, orientations, mirrored.astype(np.int32),
                    boxes.astype(np.int32), fetched)

        *columns, box, fetched = tf.numpy_function(look_up, [ids, seeds], [*[tf.int32] * 6, tf.string], stateful=False)
        columns = [tf.ensure_shape(column, ids.shape) for column in (*columns, fetched)]
        return ids, seeds, *columns, tf.ensure_shape(box, [*ids.shape, 4])

    def _decode_row(self, example, seed, label, usable, way, orientation, mirrored, fetched, box):
        """A `Batch` without its first dimension; black and of no weight where the image isn't usable."""
        image = tf_decoder.decode(self.encoded(fetched), way, box, orientation, self._size, self._ways, self._turned)
        image = tf_decoder.mirror(image, mirrored)
        if self._refused.any():
            image *= tf.cast(usable, tf.uint8)
        return Batch(example, seed, image, label, tf.cast(usable, tf.float32))

    def _decode_with_care(self, *element):
        """A data set of one such, whatever is wrong with the image."""
        def damaged(example, seed, label, *_):
            tf.numpy_function(self._note, [example], [])
            return Batch(example, seed, tf.zeros([self._size, self._size, 3], tf.uint8), label, tf.constant(0.0))

        one = tf.data.Dataset.from_tensors(element)
        return one.map(self._decode_row).ignore_errors(log_warning=False).concatenate(one.map(damaged)).take(1)

    def _note(self, example):
        self._bad.note(self, int(example), None)


def _done_while_reading(augment, size):
    """The augmentations, from the first on, that cost least while an image is read."""
    here = ("flip", "crop") if size > crops.LARGE else ("flip",)
    return tuple(itertools.takewhile(lambda name: name in here, augment))
