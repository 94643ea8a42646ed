"""Measures an exported model on images from standard input. Imports nothing of this project.

    python measure_script.py h5|keras|saved_model PATH

Started as a copy in a folder of its own. The input is a sequence of chunks, all numbers in the machine's own
byte order: n, h, w, c (int64), images (uint8 [n, h, w, c]) and their labels (int32 [n]). Prints a JSON line
with the accuracy and the number of images.
"""

import ctypes
import gc
import json
import sys

gc.disable()  # until all is imported and loaded: a fifth of the time
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def classifier(kind: str, path: str) -> "Callable[[np.ndarray], np.ndarray]":
    """A function from images, uint8 [n, h, w, c], to classes, int64 [n]."""
    if kind == "saved_model":
        signature = tf.saved_model.load(path).signatures["serving_default"]

        def classify(images: np.ndarray) -> np.ndarray:
            return signature(images=tf.constant(images))["class"].numpy()

        return classify
    import keras

    model = keras.models.load_model(path, compile=False)
    assert isinstance(model, keras.Model)

    @tf.function
    def predict(images: tf.Tensor) -> tf.Tensor:
        return tf.argmax(model(tf.cast(images, tf.float32), training=False), -1)

    def classify(images: np.ndarray) -> np.ndarray:
        return predict(tf.constant(images)).numpy()

    return classify


def chunks() -> "Iterator[tuple[np.ndarray, np.ndarray]]":
    """The (images, labels) of each chunk."""
    def read(kind: type, *shape: int) -> np.ndarray:
        data = sys.stdin.buffer.read(int(np.prod(shape)) * np.dtype(kind).itemsize)
        return np.frombuffer(data, kind).reshape(shape)

    while header := sys.stdin.buffer.read(4 * np.dtype(np.int64).itemsize):
        shape = np.frombuffer(header, np.int64).tolist()
        yield read(np.uint8, *shape), read(np.int32, shape[0])


def main() -> None:
    """Prints the accuracy."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: this process ends when its parent does
    tf.config.experimental.enable_tensor_float_32_execution(False)
    kind, path = sys.argv[1:]
    classify, correct, examples = classifier(kind, path), 0, 0
    gc.enable()
    for images, labels in chunks():
        correct += int(np.sum(classify(images) == labels))
        examples += len(labels)
    assert not any(name.split(".")[0] == "trainer" for name in sys.modules)
    print(json.dumps({"accuracy": correct / examples, "examples": examples}))


main()
