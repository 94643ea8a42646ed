"""Exports, loaded again in processes of their own and run over a split; and the model that they are held against."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from trainer.errors import StorageError
from trainer.process.tf_import import tf

_LAST_SECONDS = 3600.0  # for what is on the way to a process when all images have been given to it
_ROWS = 500  # images that are evaluated at once


class Measurement:
    """Measures models on every example of a split, in float32 as float32 is: no TF32.

    On a CPU all exports are measured side by side, and each image is read once. On a GPU it is one after the other,
    for each takes memory; where one can't be measured there, it is measured on the CPU.

    Args:
        split: The `Split`.
        device: Name of the device.
        kind: Its `DeviceKind`.
        between_pieces: Called between pieces of work; may raise what ends it.
    """

    def __init__(self, split, device, kind, between_pieces):
        self._split, self._device, self._kind, self.between_pieces = split, device, kind, between_pieces

    def accuracy(self, model):
        """The accuracy of a `keras.Model` in this process."""
        predict = tf.function(lambda images: tf.argmax(model(tf.cast(images, tf.float32), training=False), -1),
                              reduce_retracing=True)
        right = examples = 0
        with _exact_products(), tf.device(self._device):
            for images, labels in self._split.chunks(_ROWS):
                self.between_pieces()
                right += int(np.sum(predict(tf.constant(images)).numpy() == labels))
                examples += len(labels)
        return right / examples

    def of_exports(self, paths):
        """Measures exports.

        Args:
            paths: Format to path.

        Returns:
            Format to a dict of accuracy and examples.

        Raises:
            StorageError: if one can't be loaded.
        """
        with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
            # A copy, started from its own folder: the package isn't on that process's path.
            script = shutil.copy(Path(__file__).with_name("measure_script.py"), scratch)
            if not self._kind.cuda:
                return self._side_by_side(paths, script)
            measured = {}
            for name, path in paths.items():
                try:
                    measured |= self._side_by_side({name: path}, script, on_gpu=True)
                except StorageError:
                    measured |= self._side_by_side({name: path}, script)  # its memory may be taken
            return measured

    def _side_by_side(self, paths, script, on_gpu=False):
        running, scratch = {}, Path(script).parent
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(
            {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if on_gpu else {"CUDA_VISIBLE_DEVICES": "-1"})}
        try:
            for name, path in paths.items():
                with open(scratch / f"{name}.err", "wb") as said:
                    running[name] = subprocess.Popen(
                        [sys.executable, script, name, str(path.resolve())], cwd=scratch, env=environment,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
                        start_new_session=True)  # Ctrl-C is for this process to answer
            self._feed(running.values())
            return {name: self._answer(name, process, scratch / f"{name}.err") for name, process in running.items()}
        finally:
            for process in running.values():
                process.kill()
                process.wait()
                process.stdout.close()
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()

    def _feed(self, processes):
        """Gives a split's images to all processes as fast as they take them; one that died is asked why later."""
        for images, labels in self._split.chunks(_ROWS):
            for process in processes:
                self.between_pieces()
                with contextlib.suppress(BrokenPipeError):
                    for array in (np.array(images.shape, np.int64), images, labels):
                        process.stdin.write(np.ascontiguousarray(array))
        for process in processes:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def _answer(self, name, process, said):
        deadline = time.monotonic() + _LAST_SECONDS
        while True:
            try:
                process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                self.between_pieces()
                if time.monotonic() > deadline:
                    raise StorageError(f"the {name} export was given all images and did not end in "
                                       f"{_LAST_SECONDS:.0f} s", f"leave {name} out of --export, or look why its "
                                       "process hangs") from None
        if process.returncode:
            last = (said.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise StorageError(f"the {name} export can't be loaded again (exit {process.returncode}): {last[:300]}",
                               f"leave {name} out of --export; the checkpoints hold the model")
        return json.loads(process.stdout.read().splitlines()[-1])


@contextlib.contextmanager
def _exact_products():
    """Around what computes products of float32 matrices as float32, also on GPUs that would round them to TF32."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
