"""Measures an exported model on images from its standard input. Imports nothing of this project.

    python measure_script.py h5|keras|saved_model PATH

Started as a copy in a folder of its own. The input is a sequence of chunks, all numbers of the machine's own
byte order: n, h, w, c (int64), images (uint8 [n, h, w, c]) and their labels (int32 [n]). Prints a JSON line
with the accuracy and the number of images that it is over.
"""

import ctypes
import json
import sys

import numpy as np
import tensorflow as tf


def classifier(kind, path):
    """A function from uint8 images to classes."""
    if kind == "saved_model":
        signature = tf.saved_model.load(path).signatures["serving_default"]
        return lambda images: signature(images=tf.constant(images))["class"].numpy()
    import keras

    model = keras.models.load_model(path, compile=False)
    predict = tf.function(lambda images: tf.argmax(model(tf.cast(images, tf.float32), training=False), -1))
    return lambda images: predict(tf.constant(images)).numpy()


def chunks():
    """The images and labels that come in."""
    def read(kind, *shape):
        data = sys.stdin.buffer.read(int(np.prod(shape)) * np.dtype(kind).itemsize)
        return np.frombuffer(data, kind).reshape(shape) if data else None

    while (shape := read(np.int64, 4)) is not None:
        yield read(np.uint8, *shape), read(np.int32, shape[0])


def main():
    """Prints the accuracy."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: not to outlive who wants to know
    tf.config.experimental.enable_tensor_float_32_execution(False)
    kind, path = sys.argv[1:]
    classify, right, examples = classifier(kind, path), 0, 0
    for images, labels in chunks():
        right += int(np.sum(classify(images) == labels))
        examples += len(labels)
    assert not any(name.split(".")[0] == "trainer" for name in sys.modules)
    print(json.dumps({"accuracy": right / examples, "examples": examples}))


main()
