"""The accuracy of exports, each loaded in a process of its own, and of the model that they are compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from trainer.errors import StorageError
from trainer.export.export_processes import ExportProcesses
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras

    from trainer.plan import Job

_CHUNK_SIZE = 500  # images that are evaluated at once
_FILES = 256  # that `serve_bytes` is given, at most


def _do_nothing() -> None:
    pass


class Measurement:
    """Measures models on every example of a split, in float32 without TF32.

    On a CPU all exports are measured side by side, and each image is read once. On a GPU the exports are measured one
    after the other, for each takes memory; an export that can't be measured on the GPU is measured on the CPU.

    Args:
        job: What the run trained.
        between_pieces: Called between pieces of work, to report progress; may raise, which ends the work.

    Attributes:
        split: The test split of the job's data, or its evaluated split if there is no test split.
        split_name: The split's name.
        between_pieces: The argument.
    """

    def __init__(self, job: Job, between_pieces: Callable[[], None] = _do_nothing) -> None:
        data, runtime = job.data, job.runtime
        self.split, self.split_name = ((data.evaluated, data.evaluated_name) if data.test is None else
                                       (data.test, "test"))
        self._device, self._kind, self.between_pieces = runtime.devices[0], runtime.kind, between_pieces

    def accuracy(self, model: keras.Model) -> float:
        """The accuracy of a model in this process."""
        @tf.function(reduce_retracing=True, autograph=False)
        def predict(images: tf.Tensor) -> tf.Tensor:
            return tf.argmax(model(tf.cast(images, tf.float32), training=False), -1)

        correct = examples = 0
        with _exact_products(), tf.device(self._device):
            for images, labels in self.split.chunks(_CHUNK_SIZE):
                self.between_pieces()
                correct += int(np.sum(predict(tf.constant(images)).numpy() == labels))
                examples += len(labels)
        return correct / examples

    def starting(self, names: Sequence[str]) -> contextlib.AbstractContextManager[ExportProcesses | None]:
        """Starts what can start before the exports are written: on a CPU, the processes of all formats.

        Args:
            names: The formats.

        Returns:
            A context manager; what it gives is for `of_exports`.
        """
        return contextlib.nullcontext() if self._kind.cuda else ExportProcesses(names)

    def of_exports(self, paths: Mapping[str, Path], started: ExportProcesses | None) -> dict[str, dict[str, Any]]:
        """Measures exports.

        Args:
            paths: Format to path.
            started: What `starting` gave, for the same formats.

        Returns:
            Format to a dict of accuracy and examples; of the SavedModel also file_examples and file_differences: how
            many files `serve_bytes` was given, and of how many it said another class than of their pixels.

        Raises:
            StorageError: if one can't be loaded.
        """
        if started:
            return self._side_by_side(paths, started)
        measured = {}
        for name, path in paths.items():
            try:
                with ExportProcesses([name], on_gpu=True) as processes:
                    measured |= self._side_by_side({name: path}, processes)
            except StorageError:
                with ExportProcesses([name]) as processes:  # the GPU's memory may be taken
                    measured |= self._side_by_side({name: path}, processes)
        return measured

    def _side_by_side(self, paths: Mapping[str, Path], processes: ExportProcesses) -> dict[str, dict[str, Any]]:
        processes.load(paths)
        self._feed(processes.pipes)
        return processes.answers(self.between_pieces)

    def _feed(self, pipes: Mapping[str, IO[bytes]]) -> None:
        """Writes a split's images to all processes as fast as they read; `answers` reports one that died.

        The process of the SavedModel gets some of them again, as the files that they come from.
        """
        sample, rows = set(np.linspace(0, self.split.size - 1, min(_FILES, self.split.size)).astype(int).tolist()), []
        for ids, images, labels in self.split.identified_chunks(_CHUNK_SIZE):
            for pipe in pipes.values():
                self.between_pieces()
                _write(pipe, np.array(images.shape, np.int64), images, labels)
            if "saved_model" in pipes:
                rows += [(images[row], self._file(example)) for row, example in enumerate(ids.tolist())
                         if example in sample]
        files = [(image, file) for image, file in rows if file is not None]
        if files:
            images = np.stack([image for image, _ in files])
            _write(pipes["saved_model"], np.array([-len(files), *images.shape[1:]], np.int64), images,
                   np.array([len(file) for _, file in files], np.int64),
                   *(np.frombuffer(file, np.uint8) for _, file in files))
        for pipe in pipes.values():
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _file(self, example: int) -> bytes | None:
        """The file of an example; None if there is none, or none any more."""
        with contextlib.suppress(ValueError):
            return self.split.served_file(example)
        return None


def _write(pipe: IO[bytes], *arrays: np.ndarray) -> None:
    with contextlib.suppress(BrokenPipeError):
        for array in arrays:
            pipe.write(np.ascontiguousarray(array).data)


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Computes products of float32 matrices in float32 within a block, also on GPUs that would round to TF32."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
