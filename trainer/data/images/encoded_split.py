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
import dataclasses
import functools
import io
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trainer.data.images import crops, pillow_reader, tf_decoder
from trainer.data.split import Batch, Split
from trainer.errors import StorageError, raise_if_transient
from trainer.process import cpu
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    from trainer.data.bad_examples import BadExamples


@dataclasses.dataclass(frozen=True)
class HeaderTable:
    """What the headers of n images say, column by column.

    Args:
        kinds, widths, heights, orientations: int [n], the fields of `pillow_reader.ImageHeader`.
        problems: Ids of images that can't be used to what is wrong with them, in a few words.
    """

    kinds: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    orientations: np.ndarray
    problems: dict[int, str]

    @classmethod
    def join(cls, headers: Sequence[pillow_reader.ImageHeader]) -> HeaderTable:
        """The table of a list of headers."""
        columns = np.array([header[:4] for header in headers], np.int32).reshape(-1, 4).T
        return cls(columns[0].astype(np.uint8), columns[1], columns[2], columns[3].astype(np.uint8),
                   {row: header.problem for row, header in enumerate(headers) if header.problem})


class EncodedSplit(Split):
    """A split whose images are encoded, in files.

    Args:
        labels: int32 [n].
        headers: What the images' headers say.
        size: Side of the model's images in pixels.
        augment: `--augment`; flip and the random crop of large images are done here if they come first.
        bad: The data set's bad examples; those that `headers` knows are noted at once.
    """

    decodes = True

    def __init__(self, labels: np.ndarray, headers: HeaderTable, size: int, augment: Sequence[str],
                 bad: BadExamples) -> None:
        super().__init__(labels)
        self._headers, self._size, self._bad = headers, size, bad
        self.done = _done_while_reading(augment, size)
        self._unusable = np.zeros(len(labels), bool)
        for example, problem in headers.problems.items():
            self._unusable[example] = True
            bad.note(self, example, problem)
        # Read in place of an unusable image: a step with a row that is known to be bad need not be done over.
        self._stand_in = int(self._unusable.argmin())
        shorter = np.minimum(headers.heights, headers.widths)[~self._unusable]
        # Where only few images are large enough to be halved, that saves less than choosing costs.
        self._halves = len(shorter) > 0 and bool(np.median(shorter) >= 2 * size)
        ways_by_kind: dict[int, Sequence[int]] = {
            pillow_reader.JPEG: range(4) if self._halves else [0], pillow_reader.PNG: [tf_decoder.PNG],
            pillow_reader.OTHER: [tf_decoder.OTHER]}
        kinds = np.unique(headers.kinds[~self._unusable]).tolist() or [pillow_reader.OTHER]
        self._ways = [way for kind in kinds for way in ways_by_kind[kind]]
        self._turned = bool((headers.orientations != 1).any())

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

        def decode_step(*columns: Any) -> tf.data.Dataset:
            rows = tf.data.Dataset.from_tensor_slices(columns)
            fast = rows.map(self._decode_row, num_parallel_calls=threads, deterministic=True).batch(batch_size, True)
            careful = rows.interleave(self._decode_with_care, cycle_length=threads, num_parallel_calls=threads,
                                      deterministic=True).batch(batch_size, True)
            return fast.ignore_errors(log_warning=False).concatenate(careful).take(1)

        # Two steps at once, so that no thread waits where one ends and the next begins.
        prepared = positions.map(functools.partial(self._prepare_step, training)).prefetch(1)
        return prepared.interleave(decode_step, cycle_length=2, num_parallel_calls=2, deterministic=True)

    def chunks(self, chunk_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Goes over the images once, as `Split.chunks` describes it; leaves out those that can't be read."""
        def position(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.ensure_shape(ids, [1]), tf.zeros([1], tf.uint32)

        positions = tf.data.Dataset.range(self.size).batch(1).map(position)
        data = self.read(positions, cpu.cores(), training=False).unbatch().batch(chunk_size).prefetch(1)
        for batch in cast("Iterator[Any]", data.as_numpy_iterator()):
            self._bad.check()
            readable = batch.mask > 0
            yield batch.images[readable], batch.labels[readable]

    def problem_of(self, example: int) -> str | None:
        """What is wrong with an example, in a few words, or None: reads and decodes all of it."""
        if example in self._headers.problems:
            return self._headers.problems[example]
        try:
            return pillow_reader.validate(self.load(example))
        except OSError as error:
            raise_if_transient(error, self.name_of(example))
            return f"it can't be read: {error.strerror or error}"
        except ValueError as error:
            return str(error)

    def failure_of(self, example: int) -> str:
        """Why a step could not read or decode an example, in a few words.

        Raises:
            StorageError: if the reason is gone: the image is sound, and must not be left out for it.
        """
        if problem := self.problem_of(example):
            return problem
        data, headers = self.load(example), self._headers
        known = (headers.kinds, headers.widths, headers.heights, headers.orientations)
        if pillow_reader.read_header(io.BytesIO(data))[:4] != tuple(int(column[example]) for column in known):
            return "its header is not what it was when it was read first"
        if headers.kinds[example] == pillow_reader.OTHER or tf_decoder.is_decodable(data):
            raise StorageError(f"cannot read {self.name_of(example)}: it failed a moment ago, and succeeds now",
                               "check the disk or the network file system, then run the same command again")
        return "it can't be decoded"

    def _prepare_step(self, training: bool, ids: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The arguments of `_decode_row`, for all rows of a step."""
        *columns, box, fetched = tf.numpy_function(functools.partial(self._arguments_in_numpy, training), [ids, seeds],
                                                   [*[tf.int32] * 6, tf.string], stateful=False)
        columns = [tf.ensure_shape(column, ids.shape) for column in (*columns, fetched)]
        return ids, seeds, *columns, tf.ensure_shape(box, [*ids.shape, 4])

    def _arguments_in_numpy(self, training: bool, ids: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, ...]:
        """(labels, usable, ways, orientations, mirrored, boxes, fetched) of a step's rows, in NumPy."""
        labels, usable = self.labels[ids], ~self._unusable[ids]
        ids = np.where(usable, ids, self._stand_in)
        kinds, widths, heights, orientations = (
            column[ids].astype(np.int32) for column in
            (self._headers.kinds, self._headers.widths, self._headers.heights, self._headers.orientations))
        boxes = (crops.random_boxes(heights, widths, seeds) if training and "crop" in self.done else
                 crops.central_boxes(heights, widths, self._size))
        stored = crops.stored_boxes(boxes, heights, widths, orientations)
        halvings = crops.reductions(stored, self._size) * self._halves
        jpeg = kinds == pillow_reader.JPEG
        boxes = np.where(jpeg[:, None], np.maximum(stored >> halvings[:, None], [0, 0, 1, 1]), boxes)
        ways = tf_decoder.ways_of(kinds, halvings)
        mirrored = crops.mirrored(seeds) * (training and "flip" in self.done)
        fetched = self.fetch(ids)
        if self._unusable.all():
            fetched[:] = b""  # nothing that could be decoded
        return (labels, usable.astype(np.int32), ways, orientations, mirrored.astype(np.int32), boxes.astype(np.int32),
                fetched)

    def _decode_row(self, example: tf.Tensor, seed: tf.Tensor, label: tf.Tensor, usable: tf.Tensor, way: tf.Tensor,
                    orientation: tf.Tensor, mirrored: tf.Tensor, fetched: tf.Tensor, box: tf.Tensor) -> Batch:
        """A `Batch` without its first dimension; black and of no weight where the image isn't usable."""
        image = tf_decoder.decode(self.encoded(fetched), way, box, orientation, self._size, self._ways, self._turned)
        image = tf_decoder.mirror(image, mirrored)
        if self._unusable.any():
            image *= tf.cast(usable, tf.uint8)
        return Batch(example, seed, image, label, tf.cast(usable, tf.float32))

    def _decode_with_care(self, *element: tf.Tensor) -> tf.data.Dataset:
        """A data set of the one `Batch` that `_decode_row` gives; of a black one if the image can't be decoded."""
        def damaged(example: tf.Tensor, seed: tf.Tensor, label: tf.Tensor, *_: tf.Tensor) -> Batch:
            tf.numpy_function(self._note, [example], [])
            return Batch(example, seed, tf.zeros([self._size, self._size, 3], tf.uint8), label, tf.constant(0.0))

        row = tf.data.Dataset.from_tensors(element)
        return row.map(self._decode_row).ignore_errors(log_warning=False).concatenate(row.map(damaged)).take(1)

    def _note(self, example: np.ndarray) -> None:
        self._bad.note(self, int(example), None)


def _done_while_reading(augment: Sequence[str], size: int) -> tuple[str, ...]:
    """The augmentations, from the first on, that cost least while an image is read."""
    cheap = ("flip", "crop") if size > crops.LARGE else ("flip",)
    return tuple(itertools.takewhile(cheap.__contains__, augment))
