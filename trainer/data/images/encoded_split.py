"""Images in files, of any number: read, decoded and cut out when they are needed.

    step's ids → where each lies, which part of it is seen      one call of Python a step, all rows at once
               → decode → crop → resize                         by TensorFlow, an element at a time, in parallel
               → batch

An image that can't be read or decoded doesn't end its pipeline. Its step is done over with more care, each image by
itself: `BadExamples` notes those that fail, and where it tolerates them their rows are black and weigh nothing. All
other rows stay what they would be.
"""

from __future__ import annotations

import abc
import functools
import io
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trainer.data.images import crops, pillow_reader, tf_decoder
from trainer.data.pipeline import with_threads
from trainer.data.split import Batch, Split
from trainer.errors import StorageError, raise_if_transient
from trainer.process import host
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.data.bad_examples import BadExamples
    from trainer.data.images.header_table import HeaderTable


class EncodedSplit(Split):
    """A split whose images are encoded, in files.

    Args:
        labels: int32 [n].
        headers: What the images' headers say.
        view: How the model sees images.
        augment: `--augment`; flip and the random crop of large images are done here if they come first.
        bad: The data set's bad examples; those that `headers` knows are noted at once.
    """

    decodes = True

    def __init__(self, labels: np.ndarray, headers: HeaderTable, view: crops.View, augment: Sequence[str],
                 bad: BadExamples) -> None:
        super().__init__(labels)
        host.keep_freed_memory()
        self.headers, self._view, self._bad = headers, view, bad
        self.done = _done_while_reading(augment, view)
        self._unusable = np.zeros(len(labels), bool)
        for example, problem in headers.problems.items():
            self._unusable[example] = True
            bad.note(self, example, problem)
        # Read in place of an unusable image: a step with a row that is known to be bad need not be done over.
        self._stand_in = int(self._unusable.argmin())
        self._ways = self._possible_ways()
        # `predict` shows colours to a model that was trained on grey images.
        self._decoders = [tf_decoder.Decoder(view, grey=headers.is_grey, fits=view.resize == "pad" and not (
            training and "crop" in self.done)) for training in (False, True)]

    def _possible_ways(self) -> list[int]:
        """All ways in which images of the split may be decoded: one that never comes costs time all the same."""
        headers, usable = self.headers, ~self._unusable
        kinds, tall, wide, turns = (column[usable] for column in (
            headers.kinds, headers.heights, headers.widths, headers.orientations))
        # No box is larger than its image; those of padded images are resized to less than the model's size.
        boxes = np.stack([np.zeros_like(tall), np.zeros_like(tall), tall, wide], 1)
        most = crops.reductions(boxes, crops.targets(boxes, self._view))
        ways = [tf_decoder.ways_of(kinds, np.minimum(most, halvings), turns) for halvings in range(4)]
        return np.unique(ways).tolist() or [tf_decoder.OTHER]

    @property
    def usable(self) -> np.ndarray:
        """Which examples are not known to be unusable, as `Split.usable` describes it."""
        return ~self._unusable

    @abc.abstractmethod
    def fetch(self, ids: np.ndarray) -> np.ndarray:
        """What `encoded` needs of examples, such as their paths or their content: an array of bytes objects [n]."""

    @abc.abstractmethod
    def encoded(self, fetched: tf.Tensor) -> tf.Tensor:
        """The encoded image of one element of `fetch`, a scalar string tensor."""

    @abc.abstractmethod
    def load(self, example: int) -> bytes:
        """The encoded image.

        Raises:
            OSError: if it can't be read.
            ValueError: if what was read isn't what was written.
        """

    def read(self, positions: tf.data.Dataset, threads: int, training: bool = True) -> tf.data.Dataset:
        """Puts a pipeline's images beside its ids, as `Split.read` describes it."""
        specs: Any = positions.element_spec
        batch_size = specs[0].shape[0]
        decode = functools.partial(self._decode_row, training)
        with_care = functools.partial(self._decode_with_care, training)

        @tf.autograph.experimental.do_not_convert
        def decode_step(*columns: Any) -> tf.data.Dataset:
            rows = tf.data.Dataset.from_tensor_slices(columns)
            fast = rows.map(decode, num_parallel_calls=threads, deterministic=True).batch(batch_size, True)
            careful = rows.interleave(with_care, cycle_length=threads, num_parallel_calls=threads,
                                      deterministic=True).batch(batch_size, True)
            return fast.ignore_errors(log_warning=False).concatenate(careful).take(1)

        prepare = tf.autograph.experimental.do_not_convert(functools.partial(self._prepare_step, training))
        # Two steps at once, so that no thread waits where one ends and the next begins.
        prepared = positions.map(prepare).prefetch(1)
        return prepared.interleave(decode_step, cycle_length=2, num_parallel_calls=2, deterministic=True)

    def chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Goes over the images once, as `Split.chunks` describes it; leaves out those that can't be read."""
        for _, images, labels in self.identified_chunks(chunk_size):
            yield images, labels

    def identified_chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Goes over the images once, as `chunks` does.

        Args:
            chunk_size: Images of a chunk, at most.

        Yields:
            (ids int64 [n], images, labels) of the images that can be read.
        """
        @tf.autograph.experimental.do_not_convert
        def position(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.ensure_shape(ids, [1]), tf.zeros([1], tf.uint32)

        positions = tf.data.Dataset.range(self.size).batch(1).map(position)
        data = self.read(positions, host.cores(), training=False).unbatch().batch(chunk_size).prefetch(1)
        for batch in cast("Iterator[Any]", with_threads(data, host.cores()).as_numpy_iterator()):
            self._bad.check()
            readable = batch.mask > 0
            if readable.any():
                yield batch.ids[readable], batch.images[readable], batch.labels[readable]

    def served_file(self, example: int) -> bytes | None:
        """The encoded image if it is a JPEG or PNG, as `Split.served_file` describes it."""
        return None if self.headers.kinds[example] == pillow_reader.OTHER else self.load(example)

    def problem_of(self, example: int) -> str | None:
        """What is wrong with an example, in a few words, or None: reads and decodes all of it."""
        return self.inspect(example)[0]

    def inspect(self, example: int) -> tuple[str | None, np.ndarray | None]:
        """Reads and decodes all of an example, as `Split.inspect` describes it."""
        if example in self.headers.problems:
            return self.headers.problems[example], None
        try:
            data = self.load(example)
            return tf_decoder.inspect(data, pillow_reader.read_header(io.BytesIO(data)))
        except OSError as error:
            raise_if_transient(error, self.name_of(example))
            return f"it can't be read: {error.strerror or error}", None
        except ValueError as error:
            return str(error), None

    def failure_of(self, example: int) -> str:
        """Why a step could not read or decode an example, in a few words.

        Raises:
            StorageError: if the reason is gone: the image is sound, and must not be left out for it.
        """
        if problem := self.problem_of(example):
            return problem
        header, headers = pillow_reader.read_header(io.BytesIO(self.load(example))), self.headers
        known = (headers.kinds, headers.widths, headers.heights, headers.orientations)
        if header[:4] != tuple(int(column[example]) for column in known):
            return "its header is not what it was when it was read first"
        raise StorageError(f"cannot read {self.name_of(example)}: it failed a moment ago, and succeeds now",
                           "check the disk or the network file system, then run the same command again")

    def _prepare_step(self, training: bool, ids: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The arguments of `_decode_row`, for all rows of a step."""
        *columns, box, target, fetched = tf.numpy_function(
            functools.partial(self._arguments_in_numpy, training), [ids, seeds], [*[tf.int32] * 7, tf.string],
            stateful=False)
        columns = [tf.ensure_shape(column, ids.shape) for column in (*columns, fetched)]
        return ids, seeds, *columns, tf.ensure_shape(box, [*ids.shape, 4]), tf.ensure_shape(target, [*ids.shape, 2])

    def _arguments_in_numpy(self, training: bool, ids: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, ...]:
        """(labels, usable, indices of the ways, orientations, mirrored, boxes, targets, fetched) of rows, in NumPy."""
        labels, usable = self.labels[ids], ~self._unusable[ids]
        ids = np.where(usable, ids, self._stand_in)
        kinds, widths, heights, orientations = (
            column[ids].astype(np.int32) for column in
            (self.headers.kinds, self.headers.widths, self.headers.heights, self.headers.orientations))
        boxes, targets = self._boxes(heights, widths, seeds if training and "crop" in self.done else None)
        stored = crops.stored_boxes(boxes, heights, widths, orientations)
        halvings = crops.reductions(boxes, targets)
        jpeg = kinds == pillow_reader.JPEG
        boxes = np.where(jpeg[:, None], np.maximum(stored >> halvings[:, None], [0, 0, 1, 1]), boxes)
        ways = np.searchsorted(self._ways, tf_decoder.ways_of(kinds, halvings, orientations)).astype(np.int32)
        mirrored = crops.mirrored(seeds) * (training and "flip" in self.done)
        fetched = self.fetch(ids)
        if self._unusable.all():
            fetched[:] = b""  # nothing that could be decoded
        return (labels, usable.astype(np.int32), ways, orientations, mirrored.astype(np.int32), boxes.astype(np.int32),
                targets, fetched)

    def _boxes(self, heights: np.ndarray, widths: np.ndarray,
               seeds: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """(boxes as displayed, sizes that they are resized to); random boxes if there are seeds."""
        if seeds is None:
            boxes = crops.central_boxes(heights, widths, self._view)
            return boxes, crops.targets(boxes, self._view)
        squeezes = self._view.resize == "squeeze"
        boxes = (crops.squeezed_random_boxes if squeezes else crops.random_boxes)(heights, widths, seeds)
        return boxes, crops.targets(boxes, self._view._replace(resize="squeeze"))  # a random part fills the image

    def _decode_row(self, training: bool, example: tf.Tensor, seed: tf.Tensor, label: tf.Tensor, usable: tf.Tensor,
                    way: tf.Tensor, orientation: tf.Tensor, mirrored: tf.Tensor, fetched: tf.Tensor, box: tf.Tensor,
                    target: tf.Tensor) -> Batch:
        """A `Batch` without its first dimension; black and of no weight where the image isn't usable."""
        image = self._decoders[training].decode_one_of(self._ways, self.encoded(fetched), way, box, orientation, target)
        image = tf_decoder.mirror(image, mirrored)
        if self._unusable.any():
            image *= tf.cast(usable, tf.uint8)
        return Batch(example, seed, image, label, tf.cast(usable, tf.float32))

    def _decode_with_care(self, training: bool, *element: tf.Tensor) -> tf.data.Dataset:
        """A data set of the one `Batch` that `_decode_row` gives; of a black one if the image can't be decoded."""
        def damaged(example: tf.Tensor, seed: tf.Tensor, label: tf.Tensor, *_: tf.Tensor) -> Batch:
            tf.numpy_function(self._note, [example], [])
            return Batch(example, seed, tf.zeros(self._view[:3], tf.uint8), label, tf.constant(0.0))

        row = tf.data.Dataset.from_tensors(element)
        decode = functools.partial(self._decode_row, training)
        return row.map(decode).ignore_errors(log_warning=False).concatenate(row.map(damaged)).take(1)

    def _note(self, example: np.ndarray) -> None:
        self._bad.note(self, int(example), None)


def _done_while_reading(augment: Sequence[str], view: crops.View) -> tuple[str, ...]:
    """The augmentations, from the first on, that cost least while an image is read."""
    cheap = ("flip", "crop") if view.is_large else ("flip",)
    return tuple(itertools.takewhile(cheap.__contains__, augment))
