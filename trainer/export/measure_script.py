"""Measures exported models on images from pipes. Imports nothing of this project.

    python measure_script.py h5|keras|saved_model|litert…|onnx|openvino

Started as a copy in a folder of its own. Imports TensorFlow, waits for a JSON object of name to [path, descriptor of a
pipe, whether to time it] on standard input, and then forks a process for each export, which loads it alone: no export
sees another. What a pipe holds is a sequence of chunks, all numbers in the machine's own byte order: kind, n, h, w, c
(int64), images (uint8 [n, h, w, c]), and by the kind
    0  their labels (int32 [n])
    1  the lengths of the files that they come from (int64 [n]), and these files; for a SavedModel
    2  the number of classes (int64), and the model's own probabilities (float32 [n, classes])

Writes NAME.json: the accuracy and the number of images with labels; of how many files the export said another class
than of their images; the largest difference from the model's probabilities; the latency, which depends on the clock and
decides nothing: milliseconds from images, uint8, to classes and probabilities in batches of 1 and 32, medians of a
number of calls, with the threads that they had. It is measured once all processes have answered for all their images,
one after the other. And NAME.err, what the export's process wrote to stderr. Prints a JSON object of name to exit code.
"""

import contextlib
import ctypes
import gc
import json
import os
import statistics
import sys
import time
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
BATCHES = (1, 32)  # that are timed
FEWEST_CALLS, MOST_CALLS, ENOUGH_SECONDS = 3, 50, 0.1  # of each
THREADS = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)  # TensorFlow's own rule


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
    if kind in ("onnx", "openvino"):
        return {"onnx": onnx_classifier, "openvino": openvino_classifier}[kind](path), None

    model = keras.models.load_model(path, compile=False)
    assert isinstance(model, keras.Model)
    any_number = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)

    @tf.function(input_signature=[any_number], autograph=False)
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
    interpreter = Interpreter(model_path=path, num_threads=THREADS)
    index, shape = interpreter.get_input_details()[0]["index"], None

    def classify(images: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
        nonlocal shape
        if shape != images.shape:
            shape = images.shape
            interpreter.resize_tensor_input(index, shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(index, images.astype(np.float32))
        interpreter.invoke()
        return of_logits(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))

    return classify


def onnx_classifier(path: str) -> "Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]":
    """`classifier` of an .onnx file."""
    import onnxruntime  # type: ignore[import-not-found]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: of_logits(np.asarray(session.run(["logits"], {"pixels": images.astype(np.float32)})[0]))


def openvino_classifier(path: str) -> "Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]":
    """`classifier` of a folder with model.xml."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  which would tell Intel of the import
    import openvino  # type: ignore[import-not-found]

    # Where a processor has it, OpenVINO would compute in bfloat16.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
    compiled = openvino.Core().compile_model(os.path.join(path, "model.xml"), "CPU", exact)
    return lambda images: of_logits(compiled({"pixels": images.astype(np.float32)})["logits"])


def of_logits(logits: np.ndarray) -> "tuple[np.ndarray, np.ndarray]":
    """(classes, int64 [n], probabilities, float32 [n, classes]) of logits."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return logits.argmax(1), powers / powers.sum(1, keepdims=True)


def read(pipe: "BinaryIO", kind: type, *shape: int) -> np.ndarray:
    """The next numbers of a pipe."""
    data = pipe.read(int(np.prod(shape)) * np.dtype(kind).itemsize)
    return np.frombuffer(data, kind).reshape(shape)


def measure(kind: str, path: str, pipe: "BinaryIO") -> "tuple[dict[str, Any], Callable[[], dict[str, Any]]]":
    """(what NAME.json holds but the latency, a function that measures the latency)."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
    classify, signatures = classifier(kind, path)
    gc.enable()
    correct, examples, result, some = 0, 0, {}, None
    while header := pipe.read(5 * np.dtype(np.int64).itemsize):
        chunk, count, *shape = np.frombuffer(header, np.int64).tolist()
        images = read(pipe, np.uint8, count, *shape)
        some = images[:max(BATCHES)] if some is None else some
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
    result = {**({"accuracy": correct / examples, "examples": examples} if examples else {}), **result}
    return result, lambda: {"latency": latency(kind, classify, some)} if some is not None else {}


def latency(kind: str, classify: "Callable[[np.ndarray], Any]", some: np.ndarray) -> "dict[str, Any]":
    """How long a call takes, in ms, by the size of its batch."""
    on_gpu = kind in ("h5", "keras", "saved_model") and tf.config.list_physical_devices("GPU")
    found: dict[str, Any] = {"device": "GPU" if on_gpu else "CPU", "threads": THREADS}
    for batch in BATCHES:
        images, seconds = np.resize(some, (batch, *some.shape[1:])), []
        classify(images)  # the first of a shape takes memory and chooses kernels
        while len(seconds) < FEWEST_CALLS or (len(seconds) < MOST_CALLS and sum(seconds) < ENOUGH_SECONDS):
            begin = time.perf_counter()
            classify(images)
            seconds.append(time.perf_counter() - begin)
        found[f"batch_{batch}"] = {"ms": round(1000 * statistics.median(seconds), 4), "calls": len(seconds)}
    return found


def end_with_parent() -> None:
    """Lets this process end when its parent does, where the system is Linux; elsewhere its pipe ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def fork(kind: str, path: str, descriptor: int, timed: bool, others: "list[int]") -> "tuple[int, int, int]":
    """Starts the process of an export.

    Returns:
        Its id; a descriptor that ends once it has answered for all images; one that tells it to go on by a byte.
    """
    parent, (answered, answers), (waits, turn) = os.getpid(), os.pipe(), os.pipe()
    if process := os.fork():
        os.close(answers)
        os.close(waits)
        return process, answered, turn
    try:
        end_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        for other in (*others, turn):  # whose writers would never learn that their reader is gone
            os.close(other)
        with open(f"{kind}.err", "wb") as stderr:
            os.dup2(stderr.fileno(), 2)
        with open(descriptor, "rb") as pipe:
            answer, measure_latency = measure(kind, path, pipe)
        write_answer(kind, answer)
        os.close(answers)
        if timed and os.read(waits, 1):
            write_answer(kind, {**answer, **measure_latency()})
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def write_answer(kind: str, answer: "dict[str, Any]") -> None:
    """Writes NAME.json in one step: a file that is there is an answer."""
    with open(f".{kind}.json", "w") as file:
        json.dump(answer, file)
    os.replace(f".{kind}.json", f"{kind}.json")


def main() -> None:
    """Measures each export."""
    end_with_parent()
    tasks = json.load(sys.stdin)
    descriptors = [descriptor for _, descriptor, _ in tasks.values()]
    children = {name: fork(name, path, descriptor, timed, [other for other in descriptors if other != descriptor])
                for name, (path, descriptor, timed) in tasks.items()}
    for descriptor in descriptors:
        os.close(descriptor)
    for _, answered, _ in children.values():
        os.read(answered, 1)
    codes = {}
    for name, (child, _, turn) in children.items():
        with contextlib.suppress(BrokenPipeError):
            os.write(turn, b".")
        codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(codes))


main()
