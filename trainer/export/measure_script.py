"""Measures exported models on images from pipes. Imports nothing of this project.

    python measure_script.py h5|keras|saved_model|litert…

Started as a copy in a folder of its own. Imports TensorFlow, waits for a JSON object of name to [path, descriptor of a
pipe] on standard input, and then forks a process for each export, which loads it alone: no export sees another. What a
pipe holds is a sequence of chunks, all numbers in the machine's own byte order: kind, n, h, w, c (int64), images (uint8
[n, h, w, c]), and by the kind
    0  their labels (int32 [n])
    1  the lengths of the files that they come from (int64 [n]), and these files; for a SavedModel
    2  the number of classes (int64), and the model's own probabilities (float32 [n, classes])

Writes NAME.json: the accuracy and the number of images with labels; of how many files the export said another class
than of their images; the largest difference from the model's probabilities. And NAME.err, what the export's process
wrote to stderr. Prints a JSON object of name to exit code.
"""

import contextlib
import ctypes
import gc
import json
import os
import sys
import traceback

gc.disable()  # until all is imported and loaded: a fifth of the time
sys.modules["matplotlib"] = None  # type: ignore[assignment]  which Keras would import for nothing here
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO


LABELLED, FILES, ANSWERED = range(3)  # the kinds of chunks


def classifier(kind: str, path: str) -> "tuple[Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], Any]":
    """(a function from images, uint8 [n, h, w, c], to classes, int64 [n], and probabilities, float32 [n, classes]; the
    SavedModel's signatures or None)."""
    if kind == "saved_model":
        loaded = tf.saved_model.load(path)  # lives as long as the function that names it

        def classify(images: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
            outputs = loaded.signatures["serving_default"](images=tf.constant(images))
            return outputs["class"].numpy(), outputs["probabilities"].numpy()

        return classify, loaded.signatures

    if kind.startswith("litert"):
        return lite_classifier(path), None

    model = keras.models.load_model(path, compile=False)
    assert isinstance(model, keras.Model)

    @tf.function(autograph=False)
    def predict(images: tf.Tensor) -> "tuple[tf.Tensor, tf.Tensor]":
        logits = model(tf.cast(images, tf.float32), training=False)
        return tf.argmax(logits, -1), tf.nn.softmax(logits)

    def classify(images: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
        classes, probabilities = predict(tf.constant(images))
        return classes.numpy(), probabilities.numpy()

    return classify, None


def lite_classifier(path: str) -> "Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]":
    """`classifier` of a .tflite file, in the interpreter of LiteRT's own package where that is installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]
    except ImportError:
        Interpreter = tf.lite.Interpreter
    interpreter = Interpreter(model_path=path, num_threads=os.cpu_count())
    index, shape = interpreter.get_input_details()[0]["index"], None

    def classify(images: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
        nonlocal shape
        if shape != images.shape:
            shape = images.shape
            interpreter.resize_tensor_input(index, shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(index, images.astype(np.float32))
        interpreter.invoke()
        logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return logits.argmax(1), powers / powers.sum(1, keepdims=True)

    return classify


def read(pipe: "BinaryIO", kind: type, *shape: int) -> np.ndarray:
    """The next numbers of a pipe."""
    data = pipe.read(int(np.prod(shape)) * np.dtype(kind).itemsize)
    return np.frombuffer(data, kind).reshape(shape)


def measure(kind: str, path: str, pipe: "BinaryIO") -> "dict[str, Any]":
    """What NAME.json holds."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    classify, signatures = classifier(kind, path)
    gc.enable()
    correct, examples, result = 0, 0, {}
    while header := pipe.read(5 * np.dtype(np.int64).itemsize):
        chunk, count, *shape = np.frombuffer(header, np.int64).tolist()
        images = read(pipe, np.uint8, count, *shape)
        classes, probabilities = classify(images)
        if chunk == FILES:
            files = [read(pipe, np.uint8, length).tobytes() for length in read(pipe, np.int64, count).tolist()]
            answers = signatures["serve_bytes"](image_bytes=tf.constant(files))["class"].numpy()
            result |= {"file_examples": len(files), "file_differences": int(np.sum(answers != classes))}
        elif chunk == ANSWERED:
            wanted = read(pipe, np.float32, count, int(read(pipe, np.int64, 1)[0]))
            result |= {"inputs": count, "largest_difference": float(np.max(np.abs(probabilities - wanted)))}
        else:
            correct += int(np.sum(classes == read(pipe, np.int32, count)))
            examples += count
    assert not any(name.split(".")[0] == "trainer" for name in sys.modules)
    return {**({"accuracy": correct / examples, "examples": examples} if examples else {}), **result}


def end_with_parent() -> None:
    """Lets this process end when its parent does, where the system is Linux; elsewhere its pipe ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def fork(kind: str, path: str, descriptor: int, others: "list[int]") -> int:
    """Starts the process of an export; returns its id."""
    parent = os.getpid()
    if process := os.fork():
        return process
    try:
        end_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        for other in others:  # whose writers would never learn that their reader is gone
            os.close(other)
        with open(f"{kind}.err", "wb") as stderr:
            os.dup2(stderr.fileno(), 2)
        with open(descriptor, "rb") as pipe:
            answer = measure(kind, path, pipe)
        with open(f"{kind}.json", "w") as file:  # a file that is there is an answer
            json.dump(answer, file)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    """Measures each export."""
    end_with_parent()
    tasks = json.load(sys.stdin)
    descriptors = [descriptor for _, descriptor in tasks.values()]
    children = {name: fork(name, path, descriptor, [other for other in descriptors if other != descriptor])
                for name, (path, descriptor) in tasks.items()}
    for descriptor in descriptors:
        os.close(descriptor)
    print(json.dumps({name: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for name, child in children.items()}))


main()
