"""The accuracy of exports, each loaded in a process of its own, and of the model that they are compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.export.export_processes import ExportProcesses, Measured
from trainer.process.tf_import import tf
from trainer.quality.predictions import Predictions
from trainer.train.evaluation import answer_columns, answers_of

if TYPE_CHECKING:
    import keras

    from trainer.plan import Job

_CHUNK_SIZE = 500  # images that are evaluated at once
_FILES = 256  # that `serve_bytes` is given, at most
LABELLED, FILES, ANSWERED = range(3)  # the kinds of chunks that measure_script.py reads


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
        self._splits, self._classes = data.splits, data.classes
        self._device, self._kind, self.between_pieces = runtime.devices[0], runtime.kind, between_pieces

    def predictions(self, model: keras.Model, step: int, split_name: str | None = None) -> Predictions:
        """What a model in this process says of each example of a split.

        Args:
            model: The model.
            step: The step of its weights.
            split_name: The split's name; None for the split that is measured.
        """
        name = split_name or self.split_name
        split = self._splits[name]
        columns = answer_columns(split.size, len(self._classes))

        @tf.function(reduce_retracing=True, autograph=False)
        def answer(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            logits = model(tf.cast(images, tf.float32), training=False)
            return answers_of(logits, labels, tf.ones_like(labels, tf.float32), columns)

        answers, examples = [], []
        with exact_products(), tf.device(self._device):
            for ids, images, labels in split.identified_chunks(_CHUNK_SIZE):
                self.between_pieces()
                answers.append(answer(tf.constant(images), tf.constant(labels)).numpy())
                examples.append(ids)
        return Predictions.from_answers(np.concatenate(answers), np.concatenate(examples), split.labels, split=name,
                                        step=step, classes=self._classes)

    def starting(self, names: Sequence[str]) -> contextlib.AbstractContextManager[ExportProcesses | None]:
        """Starts what can start before the exports are written: on a CPU, the processes of all formats.

        Args:
            names: The formats.

        Returns:
            A context manager; what it gives is for `of_exports`.
        """
        return contextlib.nullcontext() if self._kind.cuda else ExportProcesses(names)

    def of_exports(self, paths: Mapping[str, Path], started: ExportProcesses | None) -> Measured:
        """Measures exports.

        Args:
            paths: Format to path.
            started: What `starting` gave, for these formats at least.

        Returns:
            What each export answered, and why others can't be measured.
        """
        if started:
            return self._side_by_side(paths, started)
        measured = Measured({}, {})
        for name, path in paths.items():
            with ExportProcesses([name], on_gpu=True) as processes:
                answers, failures = self._side_by_side({name: path}, processes)
            if failures:
                with ExportProcesses([name]) as processes:  # the GPU's memory may be taken
                    answers, failures = self._side_by_side({name: path}, processes)
            measured.answers.update(answers)
            measured.failures.update(failures)
        return measured

    def _side_by_side(self, paths: Mapping[str, Path], processes: ExportProcesses) -> Measured:
        processes.load(paths)
        self._feed(processes)
        return processes.answers(self.between_pieces)

    def _feed(self, processes: ExportProcesses) -> None:
        """Writes a split's images to all processes as fast as they read.

        The process of the SavedModel gets some of them again, as the files that they come from.
        """
        sample, rows = set(np.linspace(0, self.split.size - 1, min(_FILES, self.split.size)).astype(int).tolist()), []
        for ids, images, labels in self.split.identified_chunks(_CHUNK_SIZE):
            kind, arrays = self._targets(ids, labels)
            for name in processes.pipes:
                self.between_pieces()
                processes.write(name, kind, images, *arrays)
            if "saved_model" in processes.pipes:
                rows += [(images[row], self._file(example)) for row, example in enumerate(ids.tolist())
                         if example in sample]
        files = [(image, file) for image, file in rows if file is not None]
        if files:
            processes.write("saved_model", FILES, np.stack([image for image, _ in files]),
                            np.array([len(file) for _, file in files], np.int64),
                            *(np.frombuffer(file, np.uint8) for _, file in files))
        processes.close_pipes()

    def _targets(self, ids: np.ndarray, labels: np.ndarray) -> tuple[int, list[np.ndarray]]:
        """(kind of a chunk, what stands behind its images), of examples with these ids and labels."""
        del ids
        return LABELLED, [labels]

    def _file(self, example: int) -> bytes | None:
        """The file of an example; None if there is none, or none any more."""
        with contextlib.suppress(ValueError):
            return self.split.served_file(example)
        return None


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Computes products of float32 matrices in float32 within a block, also on GPUs that would round to TF32."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
