"""The accuracy of exports, each loaded in a process of its own, and of the model that they are compared with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from trainer.errors import StorageError
from trainer.process.tf_import import tf

if TYPE_CHECKING:
    import keras

    from trainer.plan import Job

_LAST_SECONDS = 3600.0  # in which a process must end after all images have been written to it
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
        @tf.function(reduce_retracing=True)
        def predict(images: tf.Tensor) -> tf.Tensor:
            return tf.argmax(model(tf.cast(images, tf.float32), training=False), -1)

        correct = examples = 0
        with _exact_products(), tf.device(self._device):
            for images, labels in self.split.chunks(_CHUNK_SIZE):
                self.between_pieces()
                correct += int(np.sum(predict(tf.constant(images)).numpy() == labels))
                examples += len(labels)
        return correct / examples

    def of_exports(self, paths: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """Measures exports.

        Args:
            paths: Format to path.

        Returns:
            Format to a dict of accuracy and examples; of the SavedModel also file_examples and file_differences: how
            many files `serve_bytes` was given, and of how many it said another class than of their pixels.

        Raises:
            StorageError: if one can't be loaded.
        """
        with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
            # A copy that is started in its own folder: the package isn't on that process's path.
            script = shutil.copy(Path(__file__).with_name("measure_script.py"), scratch)
            if not self._kind.cuda:
                return self._side_by_side(paths, script)
            measured = {}
            for name, path in paths.items():
                try:
                    measured |= self._side_by_side({name: path}, script, on_gpu=True)
                except StorageError:
                    measured |= self._side_by_side({name: path}, script)  # the GPU's memory may be taken
            return measured

    def _side_by_side(self, paths: Mapping[str, Path], script: Path | str,
                      on_gpu: bool = False) -> dict[str, dict[str, Any]]:
        scratch = Path(script).parent
        running: dict[str, subprocess.Popen[bytes]] = {}
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(
            {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if on_gpu else {"CUDA_VISIBLE_DEVICES": "-1"})}
        try:
            for name, path in paths.items():
                with open(scratch / f"{name}.err", "wb") as stderr:
                    running[name] = subprocess.Popen(
                        [sys.executable, script, name, str(path.resolve())], cwd=scratch, env=environment,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                        start_new_session=True)  # so that only this process receives Ctrl-C
            self._feed({name: process.stdin for name, process in running.items() if process.stdin})
            return {name: self._answer(name, process, scratch / f"{name}.err") for name, process in running.items()}
        finally:
            for process in running.values():
                process.kill()
                process.wait()
                for stream in (process.stdout, process.stdin):
                    with contextlib.suppress(BrokenPipeError):
                        if stream:
                            stream.close()

    def _feed(self, pipes: Mapping[str, IO[bytes]]) -> None:
        """Writes a split's images to all processes as fast as they read; `_answer` reports a process that died.

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

    def _answer(self, name: str, process: subprocess.Popen[bytes], stderr: Path) -> dict[str, Any]:
        """Waits until a process ends; returns the accuracy and the number of examples that it printed."""
        deadline = time.monotonic() + _LAST_SECONDS
        while True:
            try:
                process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                self.between_pieces()
                if time.monotonic() > deadline:
                    raise StorageError(f"the {name} export was given all images and did not end in "
                                       f"{_LAST_SECONDS:.0f} s", f"leave {name} out of --export, or check why its "
                                       "process hangs") from None
        if process.returncode:
            last = (stderr.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise StorageError(f"the {name} export can't be loaded again (exit {process.returncode}): {last[:300]}",
                               f"leave {name} out of --export; the checkpoints hold the model")
        assert process.stdout is not None  # a pipe
        return json.loads(process.stdout.read().splitlines()[-1])


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
