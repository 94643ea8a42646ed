"""Measures an exported model on images from standard input. Imports nothing of this project.

    python measure_script.py h5|keras|saved_model PATH

Started as a copy in a folder of its own. The input is a sequence of chunks, all numbers in the machine's own
byte order: n, h, w, c (int64), images (uint8 [n, h, w, c]) and their labels (int32 [n]). A SavedModel may get a last
chunk with -n: images, the lengths of the files that they come from (int64 [n]), and these files. Prints a JSON line
with the accuracy and the number of images, and of how many files it said another class than of their images.
"""

import ctypes
import gc
import json
import sys

gc.disable()  # until all is imported and loaded: a fifth of the time
sys.modules["matplotlib"] = None  # type: ignore[assignment]  which Keras would import for nothing here
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def classifier(kind: str, path: str) -> "tuple[Callable[[np.ndarray], np.ndarray], Any]":
    """(a function from images, uint8 [n, h, w, c], to classes, int64 [n]; the SavedModel's signatures or None)."""
    if kind == "saved_model":
        loaded = tf.saved_model.load(path)  # lives as long as the function that names it

        def classify(images: np.ndarray) -> np.ndarray:
            return loaded.signatures["serving_default"](images=tf.constant(images))["class"].numpy()

        return classify, loaded.signatures
    import keras

    model = keras.models.load_model(path, compile=False)
    assert isinstance(model, keras.Model)

    @tf.function
    def predict(images: tf.Tensor) -> tf.Tensor:
        return tf.argmax(model(tf.cast(images, tf.float32), training=False), -1)

    def classify(images: np.ndarray) -> np.ndarray:
        return predict(tf.constant(images)).numpy()

    return classify, None


def read(kind: type, *shape: int) -> np.ndarray:
    """The next numbers of the input."""
    data = sys.stdin.buffer.read(int(np.prod(shape)) * np.dtype(kind).itemsize)
    return np.frombuffer(data, kind).reshape(shape)


def main() -> None:
    """Prints the accuracy."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: this process ends when its parent does
    tf.config.experimental.enable_tensor_float_32_execution(False)
    kind, path = sys.argv[1:]
    classify, signatures = classifier(kind, path)
    gc.enable()
    correct, examples, result = 0, 0, {}
    while header := sys.stdin.buffer.read(4 * np.dtype(np.int64).itemsize):
        count, *shape = np.frombuffer(header, np.int64).tolist()
        images = read(np.uint8, abs(count), *shape)
        if count < 0:
            files = [read(np.uint8, length).tobytes() for length in read(np.int64, -count).tolist()]
            answers = signatures["serve_bytes"](image_bytes=tf.constant(files))["class"].numpy()
            result = {"file_examples": len(files), "file_differences": int(np.sum(answers != classify(images)))}
            continue
        correct += int(np.sum(classify(images) == read(np.int32, count)))
        examples += count
    assert not any(name.split(".")[0] == "trainer" for name in sys.modules)
    print(json.dumps({"accuracy": correct / examples, "examples": examples, **result}))


main()
